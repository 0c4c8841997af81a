"""Flows: the pipelines, as Prefect knows them."""
