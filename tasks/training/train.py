"""Train: prepare a run's directory, launch, follow, and keep what the run made."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import WorldSizeError
from trainyard.tasks.runtime.live import LatestMetrics
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch, as_reference
from trainyard.tasks.specs.hosts import Hosts
from trainyard.tasks.training.checkpoints import seed_checkpoints, set_aside_all, set_aside_broken
from trainyard.tasks.training.data_views import make_views
from trainyard.tasks.training.endings import num_leftovers
from trainyard.tasks.training.failure import describe_failure
from trainyard.tasks.training.follow import Follower
from trainyard.tasks.training.hosts.plan import hosts_plan, on_hosts
from trainyard.tasks.training.keep import (
    files_left_outside,
    keep_failed_run,
    keep_interrupted_run,
    keep_logs,
    keep_outputs,
)
from trainyard.tasks.training.launch import launch_spec
from trainyard.tasks.training.launchers.choose import launcher_for
from trainyard.tasks.training.launchers.command import LaunchCommand
from trainyard.tasks.training.packages.packages import NO_PACKAGES, Packages
from trainyard.tasks.training.remains import end_remains
from trainyard.tasks.training.run_directory import RunDirectory, checkpoints_directory, workspace_lock
from trainyard.tasks.training.snapshot import left_out
from trainyard.tasks.training.stall import StallWatch
from trainyard.tasks.training.tracking import keep_tracking

log = logging.getLogger(__name__)

_ELSEWHERE = "processes of an earlier attempt at this training are still being stopped"


def train_model(
    estimator: PyTorch,
    source: ArtifactRef,
    data: StagedData,
    context: StageContext,
    key: StageKey,
    on_progress: Callable[[LatestMetrics], None] = lambda latest: None,
    packages: Packages = NO_PACKAGES,
) -> TrainedRun:
    """Run a training job to its end and keep its outputs, logs and metric records.

    Args:
        estimator: The job.
        source: Its source snapshot in the store.
        data: Its staged data, on this machine.
        context: Where things are; its timeout bounds the attempt.
        key: The stage key; checkpoints are kept under it, so that another attempt goes on from them.
        on_progress: Called with the newest metrics: at most once in the interval of the settings, and at the end.
        packages: What the script asked for beside what is installed, ready to be used.

    Raises:
        TrainingFailedError: A rank ended badly; another attempt may help.
        TrainingStalledError: The ranks wrote nothing for too long; another attempt may help.
        ScriptDefectError: The script cannot run as it is.
        TrainingTimeoutError: The deadline passed.
        StageTimeoutError: An earlier attempt was still at work when it did.
        DataChangedError: The data was changed while the ranks read it; what they left is kept aside.
        WorldSizeError: The ranks do not form the world that was asked for.
    """
    with exclusive(workspace_lock(context.home, key), _ELSEWHERE, context.timeout_s) as lock:
        end_remains(checkpoints_directory(context.home, key))
        run = RunDirectory.create(context.home, key)
        context.store.materialize(source, run.workspace)
        for folder in ("outputs", "logs"):
            (run.workspace / folder).mkdir(exist_ok=True)
        resumed = _prepare_checkpoints(run, estimator, data, context)
        views = make_views(estimator.references, data, run, context.home)
        if isinstance(estimator.compute_target, Hosts):
            plan = hosts_plan(sys.executable, estimator.compute_target, run, data, context, packages.site_packages)
            spec = on_hosts(launch_spec(estimator, run, views.paths, context), estimator, plan, views.paths)
        else:
            spec = launch_spec(estimator, run, views.paths, context, packages)
        launcher = launcher_for(spec)
        command = launcher.build(spec)
        _describe_launch(run, command, estimator, resumed)
        job = launcher.start(command, log_path=run.launcher_log, grace_s=Settings().stop_grace_s, held=lock)
        watch = StallWatch(run, estimator.stall_timeout_s)
        follower = Follower(run, on_progress, watch, elsewhere=isinstance(estimator.compute_target, Hosts))
        try:
            report = job.wait(lambda: follower.tick(job))
        except BaseException:  # Ctrl-C and cancellation too
            if job.ended:  # else a second signal has come, which must not wait for anything
                keep_interrupted_run(run, views.roots, context)
            raise
        follower.finish()
        if report.reason == "supervisor-lost":
            end_remains(run.checkpoints)
        changes = views.find_changes()
        if changes:
            set_aside_all(run.checkpoints, run.path / "broken")
        run.keep_workspace(views.roots)
        keep_tracking(run, {entry.path for entry in context.store.list_tree(source).entries})
    ignored = left_out(Path(estimator.source_directory).expanduser())
    error = (
        follower.stalled_error(estimator.world_size)
        or describe_failure(report, run.path, command.timeout_s, ignored)
        or _missing_ranks(run, estimator.world_size)
        or changes
    )
    if error is not None:
        keep_failed_run(run, context)
        raise error
    leftovers = report.leftovers + num_leftovers(run.ranks)
    if leftovers:
        log.warning("Ended %d processes that the script had left running.", leftovers)
    return TrainedRun(
        run_id=run.run_id,
        source=source,
        outputs=keep_outputs(run, context),
        logs=keep_logs(run, context),
        records=context.store.put_tree(run.records),
        world_size=estimator.world_size,
        resumed=resumed,
        left_outside=files_left_outside(run, source, context),
    )


def _prepare_checkpoints(run: RunDirectory, estimator: PyTorch, data: StagedData, context: StageContext) -> bool:
    """Leave only whole checkpoints, or those to resume from; whether there are any."""
    set_aside_broken(run.checkpoints, run.path / "broken")
    if estimator.resume_from is not None:
        datasets = dict(zip(estimator.references, data.datasets, strict=True))
        staged = dataset_path(context.home, datasets[as_reference(estimator.resume_from)])
        if seed_checkpoints(staged, run.checkpoints):
            log.info("Beginning with the checkpoints of %s", as_reference(estimator.resume_from).uri)
            set_aside_broken(run.checkpoints, run.path / "broken" / "resume_from")
    return any(run.checkpoints.iterdir())


def _describe_launch(run: RunDirectory, command: LaunchCommand, estimator: PyTorch, resumed: bool) -> None:
    """Say what is launched, without the environment's values."""
    description = {"argv": command.argv, "cwd": str(command.cwd), "timeout_s": command.timeout_s}
    (run.path / "command.json").write_text(json.dumps(description, indent=1))
    begun = "going on from a checkpoint" if resumed else "from the start"
    log.info("Training run %s (%s), %s: %s", run.run_id, estimator.topology, begun, estimator.entry_script)


def _missing_ranks(run: RunDirectory, world_size: int) -> WorldSizeError | None:
    """A rank that never began leaves no records."""
    found = len(list(run.records.glob("rank-*.jsonl")))
    if found == world_size:
        return None
    return WorldSizeError(f"{world_size} ranks were asked for, but {found} reported themselves; see {run.path}.")
