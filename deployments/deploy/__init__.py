"""Puts onto a Prefect server what ``prefect.yaml`` and ``resources.yaml`` say; what is there already stays."""
