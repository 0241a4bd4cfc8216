"""Features of images or boxes, written to a file."""
