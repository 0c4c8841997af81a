"""Horovod: its version and what was built into it."""

import json


def main() -> None:
    """Print them."""
    import horovod
    import horovod.torch as hvd

    built = {"mpi": hvd.mpi_built(), "gloo": hvd.gloo_built(), "nccl": hvd.nccl_built()}
    print(json.dumps({"version": horovod.__version__, **built}))


if __name__ == "__main__":
    main()
