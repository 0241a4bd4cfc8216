"""Sources of weights: the registry, files, URLs and the Hugging Face Hub."""
