"""Whether all ranks hold the same model: hashes of parameters and buffers, compared over the ranks."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Digests = Mapping[str, str]
"""Name and kind of each tensor (``parameter 'fc.weight' (float32 [10, 64])``) to the SHA-256 of its content."""

BUFFERS_HINT = (
    " Running statistics of batch normalization differ unless they are synchronized; buffers=False passes over them."
)


class OutOfSyncError(AssertionError):
    """Ranks hold different models, or cannot compare them."""


def assert_in_sync(model: "Module", name: str, buffers: bool, world_size: int) -> None:
    """Compare a model over all ranks, which must all call this; see ``Run.assert_in_sync``."""
    digests = _digests(model, buffers)
    by_rank = _gather(digests)
    if len(by_rank) < world_size:
        raise OutOfSyncError(
            f"assert_in_sync({name!r}): this is one of {world_size} ranks, but neither Horovod nor torch.distributed "
            "nor MPI is initialized (with all of them) to compare it; call it before they are shut down."
        )
    differing = [rank for rank, theirs in enumerate(by_rank) if theirs != by_rank[0]]
    if differing:
        raise OutOfSyncError(_difference(name, by_rank, differing))


def _difference(name: str, by_rank: Sequence[Digests], differing: Sequence[int]) -> str:
    first, other = by_rank[0], by_rank[differing[0]]
    names = list(dict.fromkeys([*first, *other]))
    unlike = [each for each in names if first.get(each) != other.get(each)]
    where = f"rank 0 holds {_short(first, unlike[0])}, rank {differing[0]} {_short(other, unlike[0])}"
    return (
        f"assert_in_sync({name!r}): of {len(by_rank)} ranks, these differ from rank 0: "
        f"{', '.join(map(str, differing))}. On rank {differing[0]}, {len(unlike)} of {len(names)} tensors do; the "
        f"first is {unlike[0]}: {where}." + (BUFFERS_HINT if all(each.startswith("buffer") for each in unlike) else "")
    )


def _short(digests: Digests, name: str) -> str:
    return f"sha256 {digests[name][:12]}" if name in digests else "no such tensor"


def _digests(model: "Module", buffers: bool) -> dict[str, str]:
    tensors: list[tuple[str, str, Tensor]] = [("parameter", *item) for item in model.named_parameters()]
    if buffers:
        tensors += [("buffer", *item) for item in model.named_buffers()]
    return {
        f"{kind} {name!r} ({str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)})": _digest(tensor)
        for kind, name, tensor in tensors
    }


def _digest(tensor: "Tensor") -> str:
    from torch import uint8

    content = tensor.detach().cpu().contiguous().flatten().view(uint8)  # numpy has no bfloat16, but it has bytes
    return hashlib.sha256(content.numpy().data).hexdigest()


def _gather(value: Digests) -> Sequence[Digests]:
    """The values of all ranks, in their order, by way of what the script has initialized; this one's alone else."""
    hvd, dist, mpi = (sys.modules.get(name) for name in ("horovod.torch", "torch.distributed", "mpi4py.MPI"))
    if hvd is not None and hvd.is_initialized():
        gathered: list[Any] = hvd.allgather_object(value)
    elif dist is not None and dist.is_available() and dist.is_initialized():
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, value)
    elif mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        gathered = vars(mpi)["COMM_WORLD"].allgather(value)  # not by attribute: the script has not asked for it
    else:
        gathered = [value]
    return gathered
