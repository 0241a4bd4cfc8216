"""COCO JSON files: read in any of their dialects, checked, and written once in the form that every reader accepts."""
