"""Pictures of what a run sees."""
