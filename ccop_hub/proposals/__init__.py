"""Object proposals on disk and in memory: boxes by image."""
