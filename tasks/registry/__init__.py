"""The registry: validated models, by name and version, with where they come from."""
