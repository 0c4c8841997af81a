"""Whether a work pool has trained the same before, seen from the pipeline: no run is started there to find out.

The key of a training holds what is installed where it runs. The pipeline can compute it only where that is its own
environment: each training on a pool notes which one it runs in, and the pipeline believes the cache when every live
worker of the pool is noted to run in its own. Everywhere else the pool is asked, which is slower and never wrong. See
``docs/adr/0011-training-on-a-work-pool.md``.
"""

import logging
import os
import site
import sys
import time
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from pydantic import ValidationError

from trainyard.flows.handover import TrainedOnPool
from trainyard.flows.portable import anchored
from trainyard.flows.work_pools import UNREACHABLE, live_workers
from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.products import ANSWERS
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import PACKAGE_ROOT
from trainyard.tasks.caching.stage import StageContext, StageResult
from trainyard.tasks.errors import PipelineError, StorageNotFoundError
from trainyard.tasks.runtime.watchdog import start_time
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.policy import StageName, StagePolicy
from trainyard.tasks.specs.results import StageOutcome
from trainyard.tasks.specs.spec import Spec
from trainyard.tasks.staging.task import look_up_staging
from trainyard.tasks.training.task import TRAIN, look_up_training

log = logging.getLogger(__name__)

WORKER_NAME = "PREFECT__WORKER_NAME"
BOOT_ID, MOUNTS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")


class WorkerNote(Spec):
    """In which environment a worker's runs train."""

    environment: str
    """See ``this_environment``."""

    process: int
    """The worker's process id."""

    started: str
    """When that process started: a worker of the same name may be started elsewhere, or with another Python."""


def trained_before(
    pool: str, estimator: PyTorch, source: ArtifactRef, policies: dict[StageName, StagePolicy], context: StageContext
) -> TrainedOnPool | None:
    """The verified result of the same training of before; None where there is none, or only the pool can tell."""
    if any(policy.cache != "on" for policy in policies.values()):
        return None
    started = time.monotonic()
    estimator = anchored(estimator)  # as the pool gets it: how a path is written is part of the stage's key
    try:
        if not _is_ours(pool, context.store):
            return None
        staged = look_up_staging(estimator.references, context)
        trained = look_up_training(estimator, source, staged.product, context) if staged else None
    except (PipelineError, *UNREACHABLE) as error:
        log.info("Whether this was trained before is left to the work pool %r: %s", pool, error)
        return None
    if staged is None or trained is None:
        return None
    log.info("Trained before: nothing is started on the work pool %r.", pool)
    seconds = time.monotonic() - started
    outcomes: dict[StageName, StageOutcome] = {
        "stage": _outcome("stage", staged, seconds),
        "train": _outcome("train", trained, seconds),
    }
    return TrainedOnPool(staged=staged.product, trained=trained.product, outcomes=outcomes)


def _outcome(name: StageName, found: StageResult[Any], seconds: float) -> StageOutcome:
    return StageOutcome(
        stage=name,
        status="cached",
        attempts=1,
        seconds=seconds,
        cache_key=found.cache_key,
        num_bytes=found.num_bytes,
    )


def note_environment(store: ArtifactStore, pool: str | None) -> None:
    """Note in which environment this run of a pool's worker trains; a store that cannot keep it fails nothing."""
    worker, environment = os.environ.get(WORKER_NAME), this_environment()
    process = os.getppid()
    started = start_time(process)
    if pool is None or worker is None or environment is None or started is None:
        return
    note = WorkerNote(environment=environment, process=process, started=started)
    try:
        _note(store, pool, worker).write_bytes(note.model_dump_json().encode())
    except PipelineError as error:
        log.warning("Pipelines will not know where the worker %r trains: %s", worker, error)


def this_environment() -> str | None:
    """What says that two processes compute the same keys: one file system, one Python, and what is installed in it now.

    None where the system does not tell (other than Linux): then nobody shares it.
    """
    try:
        system = [BOOT_ID.read_text().strip(), os.readlink(MOUNTS)]
    except OSError:
        return None
    named = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    added = [str(folder) for folder in named if _adds_distributions(folder)]
    user_site = site.getusersitepackages() if site.ENABLE_USER_SITE else None
    return digest_value([*system, sys.prefix, str(PACKAGE_ROOT), added, user_site, TRAIN.key({}).sha256])[:32]


def _adds_distributions(folder: Path) -> bool:
    """Whether a folder on the path can decide a key. Prefect puts the folders of a deployment there, which cannot."""
    if folder == PACKAGE_ROOT.parent:  # our own code is known by its own digest
        return False
    return any(next(folder.glob(pattern), None) for pattern in ("*.dist-info", "*.egg-info", "*.egg"))


def _is_ours(pool: str, store: ArtifactStore) -> bool:
    """Whether every live worker of a pool, and there is one, trains in this process's environment."""
    ours = this_environment()
    with get_client(sync_client=True) as client:
        workers = live_workers(client, pool)
    return bool(workers) and ours is not None and all(_trains_in(ours, store, pool, worker) for worker in workers)


def _trains_in(environment: str, store: ArtifactStore, pool: str, worker: str) -> bool:
    """Whether a worker does, as the process that it is now."""
    try:
        note = WorkerNote.model_validate_json(_note(store, pool, worker).read_bytes())
    except (StorageNotFoundError, ValidationError):
        return False
    return note.environment == environment and start_time(note.process) == note.started


def _note(store: ArtifactStore, pool: str, worker: str) -> Location:
    """Below a folder of its own beside the answers, where 'trainyard gc' removes what is long unused."""
    return store.root / f"{ANSWERS}worker-{digest_value([pool, worker])[:32]}/environment.json"
