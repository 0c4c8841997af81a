"""Submit pipelines to the deployment on a Prefect server, as the first-generation SDK's experiments did."""

import getpass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled
from pydantic import ValidationError

from trainyard.flows.pipeline_file import PipelineFile
from trainyard.flows.pipeline_handle import PipelineRun
from trainyard.flows.pipeline_run import default_model_name
from trainyard.flows.portable import anchored
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.flows.setting_problems import setting_problems
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.estimator import PyTorch

DEPLOYMENT = "training-pipeline/training-pipeline"


class Experiment:
    """A name under which runs belong together: the tag ``experiment:<name>`` in Prefect.

    Args:
        name: Letters, digits, spaces, ``.``, ``_`` and ``-``.
        deployment: The deployment of ``training_pipeline`` that runs it, ``<flow>/<deployment>``.
    """

    def __init__(self, name: str, *, deployment: str = DEPLOYMENT) -> None:
        if not name.strip():
            raise InvalidInputError("An experiment needs a name, for example Experiment('digits').")
        self.name = name
        self.deployment = deployment

    def __repr__(self) -> str:
        """For a prompt."""
        return f"Experiment({self.name!r})"

    @property
    def tag(self) -> str:
        """What its runs are tagged with in Prefect."""
        return f"experiment:{self.name}"

    def submit(self, estimator: PyTorch, **pipeline_arguments: Any) -> PipelineRun:
        """Have a worker run the training pipeline, and return at once.

        The worker must see the source directory and local datastores at the paths that they have here.

        Args:
            estimator: The training job.
            pipeline_arguments: The other arguments of ``training_pipeline``.

        Raises:
            InvalidInputError: An argument is wrong, or the deployment does not exist; nothing was submitted.
            PrefectUnavailableError: The Prefect server does not answer.
        """
        pipeline = _pipeline(anchored(estimator), pipeline_arguments)
        with prefect_errors(), get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                _deployment_id(client, self.deployment),
                parameters=pipeline.model_dump(mode="json"),
                state=Scheduled(message=f"Submitted by {_user()}"),
                name=f"{pipeline.model_name or default_model_name(estimator)} {estimator.topology}",
                tags=[self.tag],
            )
        assert pipeline.store is not None
        return PipelineRun(run.id, store=pipeline.store)

    def get_runs(self) -> list[PipelineRun]:
        """Its runs, newest first; those that were started in other ways carry the tag, or are not its."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
        from prefect.client.schemas.sorting import FlowRunSort

        with prefect_errors(), get_client(sync_client=True) as client:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[self.tag])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            )
        default = Settings().store_url
        return [PipelineRun(run.id, store=run.parameters.get("store") or default) for run in runs]


def _user() -> str:
    """Who submits; a container may run under a uid that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # which of them depends on the Python
        return "somebody"


def _pipeline(estimator: PyTorch, arguments: dict[str, Any]) -> PipelineFile:
    """The parameters, checked here; the store is named, so that this process finds what the worker keeps."""
    given = {"estimator": estimator, **arguments}
    try:
        pipeline = PipelineFile.model_validate(given)
    except ValidationError as error:
        problems = setting_problems(error, PipelineFile, given)
        raise InvalidInputError.from_problems("The training pipeline", problems) from error
    store = pipeline.store or Settings().store_url
    return pipeline.model_copy(update={"store": Location(store).url})


def _deployment_id(client: SyncPrefectClient, name: str) -> UUID:
    client.raise_for_api_version_mismatch_once()
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound as error:
        raise InvalidInputError(
            f"The Prefect server at {client.api_url} has no deployment {name!r}: create it with 'trainyard deploy' (or "
            "'trainyard up', which also starts a worker)."
        ) from error
