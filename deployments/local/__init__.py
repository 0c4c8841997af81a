"""A Prefect server, workers and deployments on this machine, as background processes that one command ends."""
