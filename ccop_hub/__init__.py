"""Backbones that know objects: their architectures, weight formats, registry, checkpoints and publishing."""

__version__ = "0.1.0"
