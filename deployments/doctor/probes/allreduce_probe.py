"""One rank of the all-reduce that proves that distributed training works here; rank 0 prints."""

import json
import time

NUM_ELEMENTS = 4 * 1024 * 1024  # float32: 16 MiB


def main() -> None:
    """Sum a tensor over all ranks, and print the world's size, the sum and the time of the second try."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    tensor = torch.full((NUM_ELEMENTS,), float(hvd.rank() + 1))
    hvd.allreduce(tensor, op=hvd.Sum, name="warm-up")
    start = time.perf_counter()
    total = hvd.allreduce(tensor, op=hvd.Sum, name="timed")
    milliseconds = 1000 * (time.perf_counter() - start)
    if hvd.rank() == 0:
        sums = total.unique().tolist()
        print(json.dumps({"world_size": hvd.size(), "sums": sums, "milliseconds": milliseconds}))
    hvd.shutdown()


if __name__ == "__main__":
    main()
