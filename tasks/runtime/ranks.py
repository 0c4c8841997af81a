"""Who this process is among the ranks, and the files that each rank keeps."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANKS_DIRECTORY_VARIABLE = "TRAINYARD_RANKS_DIR"


@dataclass(frozen=True, slots=True)
class Rank:
    """A process's place in the world."""

    rank: int
    """Global rank, from 0."""

    local_rank: int
    """Rank on this host, from 0."""

    world_size: int
    """Number of ranks."""

    launched_by_mpi: bool
    """Whether Open MPI started this process."""

    host: str
    """This machine's name."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Rank":
        """Read the launcher's variables: Open MPI's, else torchrun's, else those of a single process."""
        by_mpi = "OMPI_COMM_WORLD_RANK" in environment
        names = (
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE")
            if by_mpi
            else ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        )
        rank, local_rank, world_size = (
            int(environment.get(name, default)) for name, default in zip(names, ("0", "0", "1"), strict=True)
        )
        return cls(rank, local_rank, world_size, by_mpi, socket.gethostname())


def log_file(directory: Path, rank: int) -> Path:
    """Where a rank's output goes."""
    return directory / f"rank-{rank:05d}.log"


def failure_file(directory: Path, rank: int) -> Path:
    """Where a rank that fails says why."""
    return directory / f"rank-{rank:05d}.failure.json"


def process_file(directory: Path, rank: int) -> Path:
    """Which process a rank is: ``{"rank": 0, "host": "node1", "pid": 4711}``."""
    return directory / f"rank-{rank:05d}.process.json"


def exit_file(directory: Path, rank: int) -> Path:
    """How a rank's process ended, by its keeper: status or signal, and whether it had been asked to stop."""
    return directory / f"rank-{rank:05d}.exit.json"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a small file that appears whole, or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    scratch.write_text(json.dumps(value))
    scratch.replace(path)


def stacks_request(run: Path) -> Path:
    """The file in a run's directory by which the pipeline asks whoever launched ranks elsewhere for their stacks."""
    return run / "stacks.asked"


def running_ranks(directory: Path) -> list[dict[str, Any]]:
    """Rank, host and process id of every rank that has begun and not ended, as far as this directory knows."""
    found = [json.loads(path.read_bytes()) for path in sorted(directory.glob("rank-*.process.json"))]
    return [each for each in found if not exit_file(directory, each["rank"]).exists()]


def ask_for_stacks(directory: Path) -> None:
    """Have every rank on this machine write the stacks of its threads into its log.

    The runtime has registered ``faulthandler`` for SIGUSR1: a handler in C, which also answers while the
    interpreter waits in native code.
    """
    for each in running_ranks(directory):
        if each["host"] == socket.gethostname():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each["pid"], signal.SIGUSR1)
