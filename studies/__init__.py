"""Studies of the method; each is a command that anyone can rerun, with the settings, raw results and record of it."""
