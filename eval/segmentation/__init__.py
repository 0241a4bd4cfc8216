"""Semantic segmentation with a fully convolutional head on a stride-16 backbone."""
