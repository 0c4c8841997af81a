"""What a model is between stages: the saved program, the signature, the files they travel in."""
