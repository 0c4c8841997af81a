"""What a saved model is, told from its bytes alone: nothing in it is run."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Literal, get_args

from trainyard.tasks.errors import ExportError

ModelKind = Literal["program", "state_dict", "safetensors", "torchscript", "pickle"]

SUFFIXES = {
    ".pt2": "a torch.export program",
    ".safetensors": "a safetensors file",
    ".pt": "a state dict, TorchScript or pickled module",
    ".pth": "a state dict, TorchScript or pickled module",
    ".bin": "a state dict or pickled module",
    ".ckpt": "a state dict or pickled module",
    ".pkl": "a pickled module",
    ".ts": "a TorchScript file",
    ".torchscript": "a TorchScript file",
}
"""Endings by which a model is looked for where none is named."""

DESCRIPTIONS: dict[ModelKind, str] = {
    "program": "torch.export program",
    "state_dict": "state dict",
    "safetensors": "safetensors file",
    "torchscript": "TorchScript file",
    "pickle": "pickled module",
}
assert set(DESCRIPTIONS) == set(get_args(ModelKind))

_PICKLE_PROTO = 0x80  # the first opcode of protocol 2 and later, see pickletools


def kind_of(path: Path, shown_as: str) -> ModelKind:
    """Look at a file's structure.

    Raises:
        ExportError: It is none of the kinds of file that a model is saved in.
    """
    if zipfile.is_zipfile(path):
        return _archive_kind(path, shown_as)
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[:1] == bytes([_PICKLE_PROTO]):
        return "state_dict" if _is_plain_legacy(path) else "pickle"
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    raise ExportError(
        f"{shown_as} in the run's outputs is not a saved model: expected a torch.export program (.pt2), a state dict, "
        f"a safetensors file, a TorchScript file or a pickled module; found {path.stat().st_size:,} bytes that begin "
        f"with {head!r}."
    )


def _archive_kind(path: Path, shown_as: str) -> ModelKind:
    """Tell apart the zip archives of torch, by the names of their members."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ExportError(f"{shown_as} in the run's outputs is a damaged archive ({error}); save it again.") from error
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if "data.pkl" in names:
        return "pickle" if _unsafe_globals(path) else "state_dict"
    return "program"  # loading says what is wrong with one that is none


def _unsafe_globals(path: Path) -> list[str]:
    """Names that loading would import, beside those of plain tensors and containers."""
    import torch

    return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))


def _is_plain_legacy(path: Path) -> bool:
    """Whether a file of before torch 1.6 holds nothing but tensors in containers; reads it without running it."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol, for a pickle that is refused anyhow
            torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        return False
    return True
