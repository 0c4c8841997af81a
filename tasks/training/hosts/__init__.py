"""Training over several hosts: one ssh connection and one agent a node; see docs/adr/0005."""
