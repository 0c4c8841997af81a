"""The artifact store: immutable, content-addressed files and trees at any fsspec URL."""
