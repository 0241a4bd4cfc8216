"""Procedurally drawn scenes: a data set with nothing to download."""
