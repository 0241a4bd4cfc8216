"""Image files: which files are images, and decoding any of them."""

from .decoding import (
    MAX_PIXELS,
    UnreadableImageError,
    decode_rgb,
    open_regular,
    read_class_ids,
    read_instance_ids,
    read_rgb,
    read_size,
)
from .formats import IMAGE_SUFFIXES, is_image_name
from .listing import ImageFiles, describe_passed_over, is_hidden, list_folders, list_images, require_images, scan_images

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageFiles",
    "UnreadableImageError",
    "decode_rgb",
    "describe_passed_over",
    "is_hidden",
    "is_image_name",
    "list_folders",
    "list_images",
    "open_regular",
    "read_class_ids",
    "read_instance_ids",
    "read_rgb",
    "read_size",
    "require_images",
    "scan_images",
]
