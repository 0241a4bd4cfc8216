"""Shared by all evaluations: devices, images, run folders and pictures."""
