"""The region probe: classification of ground-truth boxes from frozen features."""
