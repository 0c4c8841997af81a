"""Train: prepare a run's directory, launch, follow, and keep what the run made."""

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import PipelineError, WorldSizeError
from trainyard.tasks.runtime.live import MetricsTail
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.training.exclusive import exclusive
from trainyard.tasks.training.failure import describe_failure
from trainyard.tasks.training.launchers.build import build_launch_command
from trainyard.tasks.training.launchers.command import LaunchCommand, LaunchSpec
from trainyard.tasks.training.process import run_command
from trainyard.tasks.training.rank_logs import LogTail

log = logging.getLogger(__name__)

LOG_LINE_LIMIT = 2_000


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One attempt's directory, ``<home>/runs/<run id>``.

    ``source/`` is what the script worked in, with its outputs; ``ranks/`` holds each rank's log and failure report;
    ``records/`` each rank's metric records; ``launcher.log`` what ``mpirun`` itself said; ``command.json`` what was
    launched.

    While the script runs, its directory is ``<home>/work/<key>``, the same for every attempt at the same training:
    programs that torch exports hold the paths of their source, and equal trainings should leave equal bytes.
    """

    run_id: str
    path: Path
    workspace: Path
    checkpoints: Path

    @classmethod
    def create(cls, home: Path, key: StageKey) -> "RunDirectory":
        """Make the directories of a new attempt; checkpoints are shared by all attempts at the same key."""
        run_id = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        workspace = home / "work" / key.sha256[:32]
        run = cls(run_id, home / "runs" / run_id, workspace, checkpoints_directory(home, key))
        for folder in (run.ranks, run.records, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(workspace, ignore_errors=True)  # of an attempt that was killed; nobody else works at this key
        return run

    @property
    def source(self) -> Path:
        """What the script worked in, once it has ended."""
        return self.path / "source"

    @property
    def ranks(self) -> Path:
        """Logs and failure reports."""
        return self.path / "ranks"

    @property
    def records(self) -> Path:
        """Metric records."""
        return self.path / "records"

    def environment(self) -> dict[str, str]:
        """The variables that tell the script where things are."""
        return {
            "TRAINYARD_RUN_ID": self.run_id,
            "TRAINYARD_OUTPUT_DIR": str(self.workspace / "outputs"),
            "TRAINYARD_CHECKPOINT_DIR": str(self.checkpoints),
            "TRAINYARD_METRICS_DIR": str(self.records),
            "TRAINYARD_RANKS_DIR": str(self.ranks),
        }

    def keep_workspace(self) -> None:
        """The script has ended: what it worked in becomes part of the run's directory."""
        self.workspace.replace(self.source)


def checkpoints_directory(home: Path, key: StageKey) -> Path:
    """Where attempts at the same training keep their checkpoints."""
    return home / "checkpoints" / key.sha256[:32]


def workspace_lock(home: Path, key: StageKey) -> Path:
    """Locked while processes of an attempt at a training are in its workspace, or write its checkpoints."""
    return home / "work" / f"{key.sha256[:32]}.lock"


def discard_checkpoints(home: Path, key: StageKey) -> None:
    """Remove the checkpoints of a training that has ended well, or that must start afresh."""
    shutil.rmtree(checkpoints_directory(home, key), ignore_errors=True)


def train_model(
    estimator: PyTorch,
    source: ArtifactRef,
    data: StagedData,
    context: StageContext,
    key: StageKey,
    on_progress: Callable[[MetricsTail], None] = lambda tail: None,
) -> TrainedRun:
    """Run a training job to its end and keep its outputs, logs and metric records.

    Args:
        estimator: The job.
        source: Its source snapshot in the store.
        data: Its staged data, on this machine.
        context: Where things are; its timeout bounds the attempt.
        key: The stage key; checkpoints are kept under it, so that another attempt goes on from them.
        on_progress: Called when new metrics have arrived.

    Raises:
        TrainingFailedError: A rank ended badly; another attempt may help.
        ScriptDefectError: The script cannot run as it is.
        TrainingTimeoutError: The deadline passed.
        WorldSizeError: The ranks do not form the world that was asked for.
    """
    with exclusive(workspace_lock(context.home, key)) as lock:
        run = RunDirectory.create(context.home, key)
        context.store.materialize(source, run.workspace)
        for folder in ("outputs", "logs"):
            (run.workspace / folder).mkdir(exist_ok=True)
        resumed = any(run.checkpoints.iterdir())
        spec = launch_spec(estimator, run, data, context)
        command = build_launch_command(spec)
        _describe_launch(run, command, estimator, resumed)
        follower = _Follower(run, on_progress)
        report = run_command(
            command,
            log_path=run.path / "launcher.log",
            grace_s=Settings().stop_grace_s,
            on_tick=follower.tick,
            held=lock,
        )
        follower.finish()
        run.keep_workspace()
    error = describe_failure(report, run.path, command.timeout_s) or _missing_ranks(run, estimator.world_size)
    if error is not None:
        _keep_failed_run(run, context)
        raise error
    if report.leftovers:
        log.warning("Ended %d processes that the script had left running.", report.leftovers)
    return TrainedRun(
        run_id=run.run_id,
        source=source,
        outputs=context.store.put_tree(run.source / "outputs"),
        logs=_keep_logs(run, context),
        records=context.store.put_tree(run.records),
        world_size=estimator.world_size,
        resumed=resumed,
    )


def launch_spec(estimator: PyTorch, run: RunDirectory, data: StagedData, context: StageContext) -> LaunchSpec:
    """What to launch on this machine for a run."""
    datasets = dict(zip(estimator.references, data.datasets, strict=True))

    def local_path(reference: DataReference) -> str:
        return str(dataset_path(context.home, datasets[reference]))

    inputs = {name: local_path(as_reference(value)) for name, value in estimator.inputs.items()}
    return LaunchSpec(
        python=sys.executable,
        entry_script=estimator.entry_script,
        arguments=estimator.arguments(local_path),
        working_directory=run.workspace,
        environment={
            **_inherited(os.environ),
            **estimator.environment_variables,
            **inputs,
            **run.environment(),
        }
        | {"TRAINYARD_WORLD_SIZE": str(estimator.world_size), "PYTHONSAFEPATH": "1"},
        process_count_per_node=estimator.process_count_per_node,
        node_count=estimator.node_count,
        num_cpus=len(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
        distributed_backend=estimator.distributed_backend,
        use_gpu=estimator.use_gpu,
        timeout_s=_earliest(context.timeout_s, estimator.max_run_duration_seconds),
    )


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what belongs to another launcher or to Prefect (its API key, too)."""
    prefixes = ("OMPI_", "PMIX_", "PRTE_", "PREFECT_", "TRAINYARD_")
    ranks = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
    return {name: value for name, value in environment.items() if not (name.startswith(prefixes) or name in ranks)}


def _earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


def _describe_launch(run: RunDirectory, command: LaunchCommand, estimator: PyTorch, resumed: bool) -> None:
    """Say what is launched, without the environment's values."""
    description = {"argv": command.argv, "cwd": str(command.cwd), "timeout_s": command.timeout_s}
    (run.path / "command.json").write_text(json.dumps(description, indent=1))
    begun = "going on from a checkpoint" if resumed else "from the start"
    log.info("Training run %s (%s), %s: %s", run.run_id, estimator.topology, begun, estimator.entry_script)


class _Follower:
    """Passes on what the ranks write while they run."""

    def __init__(self, run: RunDirectory, on_progress: Callable[[MetricsTail], None]) -> None:
        self._logs = LogTail(run.ranks)
        self._metrics = MetricsTail(run.records)
        self._on_progress = on_progress

    def tick(self) -> None:
        self._show(self._logs.poll())
        if self._metrics.poll():
            self._on_progress(self._metrics)

    def finish(self) -> None:
        self._show(self._logs.poll(final=True))

    @staticmethod
    def _show(lines: Iterator[tuple[str, str]]) -> None:
        for label, line in lines:
            log.info("[%s] %s", label, line[:LOG_LINE_LIMIT])


def _keep_failed_run(run: RunDirectory, context: StageContext) -> None:
    """Keep what a failed run left, and say where; a store that is down must not hide why the run failed."""
    try:
        logs, outputs = _keep_logs(run, context), context.store.put_tree(run.source / "outputs")
    except PipelineError as error:
        log.error("What the failed run left is kept in %s alone; the store refused it: %s", run.path, error)
    else:
        log.error(
            "What the failed run left is kept in %s, its logs as %s, its outputs as %s", run.path, logs.uri, outputs.uri
        )


def _keep_logs(run: RunDirectory, context: StageContext) -> ArtifactRef:
    """Everything that was logged, whatever the exit, as one tree."""
    files = {f"ranks/{path.name}": path for path in run.ranks.iterdir()}
    script_logs = run.source / "logs"
    files |= {p.relative_to(script_logs).as_posix(): p for p in script_logs.rglob("*") if p.is_file()}
    files["launcher.log"] = run.path / "launcher.log"
    return context.store.put_files(files)


def _missing_ranks(run: RunDirectory, world_size: int) -> WorldSizeError | None:
    """A rank that never began leaves no records."""
    found = len(list(run.records.glob("rank-*.jsonl")))
    if found == world_size:
        return None
    return WorldSizeError(f"{world_size} ranks were asked for, but {found} reported themselves; see {run.path}.")
