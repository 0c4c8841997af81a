"""What runs on a node of a training over several hosts, beside its ranks.

It is sent over ssh each time, so a node needs no Trainyard of its own.
"""
