"""What runs inside a training process: standard library, torch, horovod and mpi4py only, so that ranks start fast."""
