"""Read COCO JSON files of any dialect, validate them, and write a normalised copy that every reader accepts."""
