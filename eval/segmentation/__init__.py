"""Semantic segmentation: a fully convolutional head on the backbone at stride 16."""
