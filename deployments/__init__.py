"""How Trainyard comes to run on a machine: its environment, what the machine can do, and its deployments."""
