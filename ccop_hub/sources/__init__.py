"""Where weights come from: the registry, files, URLs, the Hugging Face Hub."""
