"""The processes that train together: where a launcher started ranks, Horovod's or torchrun's; else this one alone."""

import os
from types import ModuleType
from typing import Any

import torch
from torch import distributed, nn
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


class TorchWorld(World):
    """The ranks that ``torchrun`` started."""

    def __init__(self) -> None:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.local_rank = int(os.environ["LOCAL_RANK"])

    def distribute(self, optimizer: Optimizer, model: nn.Module) -> Optimizer:
        """Sums the gradients just before each step; a larger model overlaps that with DistributedDataParallel."""
        optimizer.register_step_pre_hook(lambda *_: self.sum_gradients(model))
        return optimizer

    def sum_gradients(self, model: nn.Module) -> None:
        """Sums, not averages: the loss is already divided by the number of samples of all ranks."""
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad)

    def broadcast_state(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Parameters by tensor; the optimizer's state as a whole, which may be empty."""
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, src=0)
        optimizer.load_state_dict(self.broadcast(optimizer.state_dict()))

    def broadcast(self, value: Any) -> Any:
        """Takes whatever can be pickled."""
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """One small all-reduce."""
        distributed.all_reduce(values)
        return values


def join_world() -> World:
    """The world that this process was started in; one process needs no Horovod installed."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchWorld()
    if not {"OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE"} & os.environ.keys():
        return World()
    import horovod.torch as hvd

    hvd.init()
    return HorovodWorld(hvd)
