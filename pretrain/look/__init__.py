"""Previews of a run's views, boxes and augmentations."""
