"""Pre-training runs: steps, schedule, checkpoints, monitoring and export."""
