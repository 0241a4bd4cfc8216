"""Publish weights: verification, model card and upload."""
