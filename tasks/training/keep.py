"""Keep what a run left behind, whether it ended well or not."""

import logging
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from trainyard.tasks.artifacts.products import MOST_LEFT_OUTSIDE
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import PipelineError
from trainyard.tasks.training.collected import collect_files
from trainyard.tasks.training.run_directory import RunDirectory

log = logging.getLogger(__name__)

_KEPT = ("outputs", "logs")


def keep_interrupted_run(run: RunDirectory, views: Iterable[Path], context: StageContext) -> None:
    """Keep what a run left that was ended from outside (Ctrl-C, a cancellation), whose processes are gone.

    First on this machine, which takes no time: somebody waits for this process to end, and may end it any moment.
    Nothing that goes wrong hides what ended the run; another signal ends this, too.

    Args:
        run: The run.
        views: What is of the datasets, and is not kept.
        context: Where the store is.
    """
    try:
        run.keep_workspace(views)
        goes_on = "; the next run of it goes on from its last checkpoint" if any(run.checkpoints.iterdir()) else ""
        log.warning("Training was ended before its end; what it left is in %s%s", run.path, goes_on)
        logs, outputs = keep_logs(run, context), keep_outputs(run, context)
        log.info("The store has its logs, too, as %s, and its outputs as %s", logs.uri, outputs.uri)
    except Exception as error:
        log.error("Not all that the run left could be kept: %s: %s", type(error).__name__, error)


def keep_failed_run(run: RunDirectory, context: StageContext) -> None:
    """Keep what a failed run left, and say where; a store that is down must not hide why the run failed."""
    try:
        logs, outputs = keep_logs(run, context), keep_outputs(run, context)
    except PipelineError as error:
        log.error("What the failed run left is kept in %s alone; the store refused it: %s", run.path, error)
    else:
        log.error(
            "What the failed run left is kept in %s, its logs as %s, its outputs as %s", run.path, logs.uri, outputs.uri
        )


def keep_outputs(run: RunDirectory, context: StageContext) -> ArtifactRef:
    """Everything that the script left in ``outputs/``, as one tree."""
    return context.store.put_files(collect_files(run.source / "outputs", run))


def keep_logs(run: RunDirectory, context: StageContext) -> ArtifactRef:
    """Everything that was logged, whatever the exit, as one tree."""
    files = {f"ranks/{path.name}": path for path in run.ranks.iterdir()}
    files |= collect_files(run.source / "logs", run)
    files["launcher.log"] = run.launcher_log
    return context.store.put_files(files)


def files_left_outside(run: RunDirectory, source: ArtifactRef, context: StageContext) -> tuple[str, ...]:
    """The first of the files that the script wrote outside ``outputs/`` and ``logs/``, each with its size.

    Args:
        run: The run, whose script has ended.
        source: The source snapshot that it started from.
        context: Where the store is.
    """
    known = {entry.path for entry in context.store.list_tree(source).entries}
    in_workspace = ((path, path.relative_to(run.source)) for path in sorted(run.source.rglob("*")))
    new = ((path, name) for path, name in in_workspace if name.parts[0] not in _KEPT and name.as_posix() not in known)
    workspace = run.around / run.workspace.relative_to(run.area)  # where it was
    around = ((path, Path(os.path.relpath(path, workspace))) for path in sorted(run.around.rglob("*")))
    files = (
        f"{name.as_posix()} ({path.stat().st_size:,} bytes)"
        for path, name in [*new, *around]
        if path.is_file() and "__pycache__" not in name.parts
    )
    return tuple(islice(files, MOST_LEFT_OUTSIDE))
