"""A synthetic data set that needs no download."""
