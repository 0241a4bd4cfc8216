"""Limits that settings name and that are enforced elsewhere; nothing is imported here, so that `--help` is fast."""

MAX_PIXELS = 89_478_485
"""Largest width x height of an image that is decoded: Pillow's own `Image.MAX_IMAGE_PIXELS`, 256 MiB as 24-bit RGB."""
