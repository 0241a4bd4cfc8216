"""The planner: measures this machine for a moment, and estimates what a whole project will need."""
