"""Object proposals: the search, its storage, exchange and checks."""
