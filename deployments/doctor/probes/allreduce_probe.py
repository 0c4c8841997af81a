"""One rank of the all-reduce that proves that distributed training works here; rank 0 prints."""

import json
import time

import horovod.torch as hvd
import torch

NUM_ELEMENTS = 4 * 1024 * 1024  # float32: 16 MiB

hvd.init()
tensor = torch.full((NUM_ELEMENTS,), float(hvd.rank() + 1))
total = hvd.allreduce(tensor, op=hvd.Sum, name="warm-up")
start = time.perf_counter()
hvd.allreduce(tensor, op=hvd.Sum, name="timed")
milliseconds = 1000 * (time.perf_counter() - start)
if hvd.rank() == 0:
    print(json.dumps({"world_size": hvd.size(), "sum": total.unique().sum().item(), "milliseconds": milliseconds}))
hvd.shutdown()
