"""The directories of one attempt at a training, and what all attempts at the same training share."""

import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from trainyard.tasks.caching.keys import StageKey

ABOVE_WORKSPACE = ("upper", "lower")
"""Directories between a run's area and its workspace: as many as a path that leaves it may go up."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One attempt's directory, ``<home>/runs/<run id>``.

    ``source/`` is what the script worked in, with its outputs; ``ranks/`` holds each rank's log and failure report;
    ``records/`` each rank's metric records; ``launcher.log`` what ``mpirun`` itself said; ``command.json`` what was
    launched.

    While the script runs, its directory is ``workspace``, some levels below ``<home>/work/<key>``, the same for every
    attempt at the same training: programs that torch exports hold the paths of their source, and equal trainings
    should leave equal bytes. Scripts reach for ``../data`` and ``../../data``: those are the run's alone, too.
    """

    run_id: str
    path: Path
    area: Path
    checkpoints: Path

    @classmethod
    def create(cls, home: Path, key: StageKey) -> "RunDirectory":
        """Make the directories of a new attempt; checkpoints are shared by all attempts at the same key."""
        run_id = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        area = home / "work" / key.sha256[:32]
        run = cls(run_id, home / "runs" / run_id, area, checkpoints_directory(home, key))
        for folder in (run.ranks, run.records, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(area, ignore_errors=True)  # of an attempt that was killed; nobody else works at this key
        return run

    @property
    def workspace(self) -> Path:
        """The script's working directory, while it runs."""
        return self.area.joinpath(*ABOVE_WORKSPACE, "source")

    @property
    def source(self) -> Path:
        """What the script worked in, once it has ended."""
        return self.path / "source"

    @property
    def around(self) -> Path:
        """What the script wrote outside its working directory, at paths like ``../data``, once it has ended."""
        return self.path / "around"

    @property
    def ranks(self) -> Path:
        """Logs and failure reports."""
        return self.path / "ranks"

    @property
    def records(self) -> Path:
        """Metric records."""
        return self.path / "records"

    @property
    def launcher_log(self) -> Path:
        """What the launcher itself said."""
        return self.path / "launcher.log"

    def environment(self) -> dict[str, str]:
        """The variables that tell the script where things are."""
        return {
            "TRAINYARD_RUN_ID": self.run_id,
            "TRAINYARD_OUTPUT_DIR": str(self.workspace / "outputs"),
            "TRAINYARD_CHECKPOINT_DIR": str(self.checkpoints),
            "TRAINYARD_METRICS_DIR": str(self.records),
            "TRAINYARD_RANKS_DIR": str(self.ranks),
        }

    def keep_workspace(self, views: Iterable[Path]) -> None:
        """The script has ended: what it worked in, and wrote around it, becomes part of the run's directory.

        Args:
            views: What is of the datasets, and is not kept.
        """
        for view in views:
            if view.is_dir() and not view.is_symlink():
                shutil.rmtree(view, ignore_errors=True)
            else:
                view.unlink(missing_ok=True)
        self.workspace.replace(self.source)
        if any(files for _, _, files in os.walk(self.area)):
            self.area.replace(self.around)
        else:
            shutil.rmtree(self.area)


def checkpoints_directory(home: Path, key: StageKey) -> Path:
    """Where attempts at the same training keep their checkpoints."""
    return home / "checkpoints" / key.sha256[:32]


def workspace_lock(home: Path, key: StageKey) -> Path:
    """Locked while processes of an attempt at a training are in its workspace, or write its checkpoints."""
    return home / "work" / f"{key.sha256[:32]}.lock"


def discard_checkpoints(home: Path, key: StageKey) -> None:
    """Remove the checkpoints of a training that has ended well, or that must start afresh."""
    shutil.rmtree(checkpoints_directory(home, key), ignore_errors=True)
    _begun_by(home, key).unlink(missing_ok=True)


def begin_afresh(home: Path, key: StageKey, pipeline_run: str) -> None:
    """Remove the checkpoints that other pipeline runs have left; attempts of one run go on from each other's.

    Counting attempts would not do: on a work pool each is the first one of a flow of its own, and a run that crashed
    before it came to training has had none.

    Args:
        home: This machine's directory.
        key: The training.
        pipeline_run: Id of the pipeline run that trains.
    """
    note = _begun_by(home, key)
    if note.exists() and note.read_text() == pipeline_run:
        return
    discard_checkpoints(home, key)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(pipeline_run)


def _begun_by(home: Path, key: StageKey) -> Path:
    """Names the pipeline run that began a training afresh; beside its checkpoints, which scripts list."""
    directory = checkpoints_directory(home, key)
    return directory.with_name(f"{directory.name}.run")
