"""Garbage collection: what was not used for long goes, what a live run or a registered model needs stays."""
