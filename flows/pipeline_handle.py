"""The handle to a submitted pipeline run: how it goes, what it made, and its end."""

import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import TextIO
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from prefect.utilities.urls import url_for

from trainyard.flows.answers import read_answer, read_kept
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.run_output import RunOutput
from trainyard.flows.run_waiting import wait_for_end
from trainyard.tasks.artifacts.products import CollectedMetrics, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.errors import (
    InvalidInputError,
    PipelineError,
    PrefectUnavailableError,
    RunCancelledError,
    StorageNotFoundError,
    TrainingFailedError,
)
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.results import PipelineResult

log = logging.getLogger(__name__)

SETTLE_S = 2.5
"""Seconds after its end in which a run's last lines may still arrive."""


class PipelineRun:
    """A run of the training pipeline on a Prefect server.

    Args:
        run_id: The flow run's id.
        store: URL of its artifact store; this machine's by default.
    """

    def __init__(self, run_id: UUID | str, *, store: str | None = None) -> None:
        self._id = UUID(str(run_id))
        self._store = ArtifactStore(store or Settings().store_url)

    def __repr__(self) -> str:
        """For a prompt."""
        return f"PipelineRun({self.id!r})"

    @property
    def id(self) -> str:
        """The flow run's id."""
        return str(self._id)

    def get_portal_url(self) -> str:
        """Its page in the Prefect UI."""
        return url_for("flow-run", self._id) or ""

    def get_status(self) -> str:
        """The name of its state in Prefect, for example ``Scheduled``, ``Running``, ``Completed`` or ``Failed``."""
        state = self._read().state
        return state.name or state.type.value.capitalize() if state else "Scheduled"

    def get_metrics(self) -> dict[str, float]:
        """Final value of each metric; empty until the metrics have been collected."""
        metrics = read_kept(self._store, self._id, "metrics", CollectedMetrics)
        return metrics.finals if metrics else {}

    def get_file_names(self) -> list[str]:
        """What training left, ``outputs/…`` and ``logs/…``; empty until it has ended."""
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | Path | None = None) -> Path:
        """Copy a file that training left to this machine, verified; what is there is replaced by a whole copy only.

        Args:
            name: One of ``get_file_names``.
            output_file_path: Where to; a directory, or the file itself. By default the file's own name, here.

        Raises:
            InvalidInputError: There is no such file.
        """
        files = self._files()
        if name not in files:
            there = ", ".join(sorted(files)) or "none yet"
            raise InvalidInputError(f"The run {self.id} left no file {name!r}; its files: {there}.")
        target = Path(output_file_path or Path(name).name)
        if target.is_dir():
            target /= Path(name).name
        return self._store.materialize(files[name], target)

    def cancel(self) -> None:
        """Have all its processes ended, on whatever machine; does nothing where it has ended."""
        with prefect_errors(), get_client(sync_client=True) as client:
            client.set_flow_run_state(self._id, Cancelling(message="Cancelled by who submitted it."))

    def wait_for_completion(
        self, show_output: bool = False, *, output: TextIO | None = None, raise_on_error: bool = True
    ) -> PipelineResult | None:
        """Wait until the run has ended.

        Args:
            show_output: Print its log, and that of training on another machine, as it comes.
            output: Where to; standard output by default.
            raise_on_error: Raise why it failed; else return None. What only says that the run could not be followed to
                its end, or that its result cannot be read, is raised in any case.

        Raises:
            PipelineError: Why it failed.
            PrefectUnavailableError: The Prefect server does not answer; the run is left as it is.
            WorkerUnavailableError: Its work pool has no live worker, or is paused; the run is left as it is.
        """
        run = self._wait(RunOutput(self._id, output or sys.stdout) if show_output else None)
        assert run.state is not None
        try:
            return self._result(run)
        except PipelineError:
            if raise_on_error or run.state.is_completed():
                raise
            return None

    def _wait(self, follow: RunOutput | None) -> FlowRun:
        with prefect_errors(), get_client(sync_client=True) as client:
            self._read_with(client)  # a wrong address or id is told at once
            if follow is None:
                return wait_for_end(client, self._id, started_again=True)
            show = partial(_show_new, follow, client)
            run = wait_for_end(client, self._id, started_again=True, on_answer=show, say=follow.say)
            time.sleep(SETTLE_S)
            show()
            return run

    def _result(self, run: FlowRun) -> PipelineResult:
        assert run.state is not None
        if run.state.is_cancelled():
            raise RunCancelledError(f"The run {self.id} was cancelled.")
        try:
            return read_answer(self._store, self._id, PipelineResult)
        except StorageNotFoundError as error:
            raise TrainingFailedError(
                f"The run {self.id} ended as {run.state.name} ({run.state.message}) and left no result in the store "
                f"{self._store.url}; see {self.get_portal_url()}"
            ) from error

    def _read(self) -> FlowRun:
        with prefect_errors(), get_client(sync_client=True) as client:
            return self._read_with(client)

    def _read_with(self, client: SyncPrefectClient) -> FlowRun:
        try:
            return client.read_flow_run(self._id)
        except ObjectNotFound as error:
            raise InvalidInputError(f"The Prefect server at {client.api_url} has no run {self.id}.") from error

    def _files(self) -> dict[str, ArtifactRef]:
        """Name to reference, once training has ended."""
        trained = read_kept(self._store, self._id, "train", TrainedRun)
        if trained is None:
            return {}
        trees = {"outputs": trained.outputs, "logs": trained.logs}
        return {
            f"{folder}/{path}": file
            for folder, tree in trees.items()
            for path, file in self._store.find_entries(tree).items()
        }


def _show_new(follow: RunOutput, client: SyncPrefectClient) -> None:
    """Lines that do not come must not lose how the run ends."""
    try:
        with prefect_errors():
            follow.show_new(client)
    except PrefectUnavailableError as error:
        log.warning("New lines of the run's log are not shown: %s", error)
