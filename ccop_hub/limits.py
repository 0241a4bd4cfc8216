"""Limits shared by the settings and the code that enforces them; imports nothing, so that `--help` is fast."""

MAX_PIXELS = 89_478_485
"""Maximum width x height of an image to decode: Pillow's `Image.MAX_IMAGE_PIXELS`, 256 MiB as 24-bit RGB."""

DEFAULT_WORKERS = 2
"""Data-loading processes of evaluations and `embed` by default: one reads ahead while another waits for the disk."""
