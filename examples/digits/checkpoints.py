"""Checkpoints: written whole or not at all, and read from the newest that is good."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

KEEP = 2  # the newest, and one to fall back on


def save_checkpoint(directory: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write a checkpoint that either appears whole under its name, on disk, or not at all.

    Args:
        directory: Where checkpoints are.
        epoch: How many epochs the state has seen.
        state: What training needs to go on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / ".checkpoint.partial"
    with scratch.open("wb") as stream:
        torch.save({**state, "epoch": epoch}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, directory / f"checkpoint-{epoch:05d}.pt")
    for old in list_checkpoints(directory)[KEEP:]:
        old.unlink()


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where there is none."""
    for path in list_checkpoints(directory):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            print(f"{path} cannot be read and is passed over: {error}", flush=True)
    return None


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints' files, newest first."""
    return sorted(directory.glob("checkpoint-*.pt"), reverse=True)
