"""Utilities shared by the other sub-packages: processes, parallel work, progress, locks, seeds."""
