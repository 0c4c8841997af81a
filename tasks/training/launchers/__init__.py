"""One module a launcher: each builds the exact command, as a value, and can start it."""
