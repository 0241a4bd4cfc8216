"""A pre-training run: steps, schedule, checkpoints, monitoring, export."""
