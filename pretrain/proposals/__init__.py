"""Object proposals: search, storage, import and export, and checks."""
