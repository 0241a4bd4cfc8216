"""What several rooms need: processes, parallel work, seeds."""
