"""The train stage: run the user's script, on one process or many, and keep what it made."""
