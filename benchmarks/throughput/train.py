"""How fast it trains, on made-up data: the same script for one process, Horovod ranks and torchrun's ranks."""

import argparse
import os
import time

import torch
from models import MODELS
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from trainyard import Run

parser = argparse.ArgumentParser()
parser.add_argument("--model", choices=MODELS, required=True)
parser.add_argument("--warmup-steps", type=int, default=3)
parser.add_argument("--seconds", type=float, default=10.0)
arguments = parser.parse_args()


def main() -> None:
    run = Run.get_context()
    torch.manual_seed(0)
    setting = MODELS[arguments.model]
    model, optimizer, agree = distribute(setting.build())
    inputs = torch.randn(setting.batch_size, *setting.input_shape)
    labels = torch.randint(setting.num_classes, (setting.batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    step()
    run.log("first_step_at", time.time())
    for _ in range(arguments.warmup_steps):
        step()
    num_steps = steps_in(arguments.seconds, step, agree)
    started = time.perf_counter()
    for _ in range(num_steps):
        step()
    run.log("samples_per_second", num_steps * setting.batch_size / (time.perf_counter() - started))
    run.assert_in_sync(model, buffers=False)  # each rank has batch statistics of its own


def steps_in(seconds, step, agree) -> int:
    """How many steps take so long: the same number on every rank, or they would wait for each other for ever."""
    started = time.perf_counter()
    for _ in range(2):
        step()
    return agree(max(3, round(2 * seconds / (time.perf_counter() - started))))


def distribute(model):
    """The model and its optimizer for this rank, and a function that gives rank 0's number to all."""
    if "OMPI_COMM_WORLD_RANK" in os.environ:
        import horovod.torch as hvd

        hvd.init()
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
        return model, optimizer, lambda number: hvd.broadcast_object(number, root_rank=0)
    if "RANK" in os.environ:
        import torch.distributed as dist

        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)

        def agree(number):
            values = [number]
            dist.broadcast_object_list(values, src=0)
            return values[0]

        return model, SGD(model.parameters(), lr=0.01, momentum=0.9), agree
    return model, SGD(model.parameters(), lr=0.01, momentum=0.9), lambda number: number


main()
