"""Predictions of a finished run's network on any images."""
