"""The processes that train together: Horovod's where a launcher started ranks, else this one alone."""

import os
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class World:
    """One process alone: what training needs of its peers is nothing here."""

    rank = 0
    local_rank = 0
    size = 1

    def distribute(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        """An optimizer that sums the gradients of all ranks before it steps."""
        return optimizer

    def broadcast_state(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Give every rank the parameters and the optimizer state of rank 0."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return value

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The values, summed over all ranks."""
        return values


class HorovodWorld(World):
    """The ranks that ``mpirun`` or ``horovodrun`` started."""

    def __init__(self, hvd: ModuleType) -> None:
        self.hvd = hvd
        self.rank, self.local_rank, self.size = hvd.rank(), hvd.local_rank(), hvd.size()

    def distribute(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        """Sums, not averages: the loss is already divided by the number of samples of all ranks."""
        parameters = model.named_parameters()
        return self.hvd.DistributedOptimizer(optimizer, named_parameters=parameters, op=self.hvd.Sum)

    def broadcast_state(self, model: nn.Module, optimizer: Optimizer) -> None:
        """The optimizer first: Horovod fills an empty state by a step, which may touch the parameters."""
        self.hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        self.hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    def broadcast(self, value: Any) -> Any:
        """Takes whatever can be pickled."""
        return self.hvd.broadcast_object(value, root_rank=0)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """One small all-reduce."""
        return self.hvd.allreduce(values, op=self.hvd.Sum)


def join_world() -> World:
    """The world that this process was started in; one process needs no Horovod installed."""
    if not {"OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE"} & os.environ.keys():
        return World()
    import horovod.torch as hvd

    hvd.init()
    return HorovodWorld(hvd)
