"""The region probe: how well frozen features of ground-truth boxes separate classes."""
