"""Synthetic images: a data set with nothing to download."""
