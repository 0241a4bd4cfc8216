"""Find and decode image files."""

from ..limits import MAX_PIXELS
from .decoding import (
    ImageHeader,
    Pixels,
    Reduction,
    UnreadableImageError,
    decode_header,
    decode_pixels,
    decode_rgb,
    open_regular,
    read_header,
    read_rgb,
    with_padding,
)
from .formats import IMAGE_SUFFIXES, is_image_name
from .labels import read_class_ids, read_instance_ids
from .listing import ImageFiles, describe_passed_over, is_hidden, list_folders, list_images, require_images, scan_images

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageFiles",
    "ImageHeader",
    "Pixels",
    "Reduction",
    "UnreadableImageError",
    "decode_header",
    "decode_pixels",
    "decode_rgb",
    "describe_passed_over",
    "is_hidden",
    "is_image_name",
    "list_folders",
    "list_images",
    "open_regular",
    "read_class_ids",
    "read_header",
    "read_instance_ids",
    "read_rgb",
    "require_images",
    "scan_images",
    "with_padding",
]
