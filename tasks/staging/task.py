"""The Prefect task of the stage stage."""

from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, look_up, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.publishing import UNPUBLISHED
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.bar import TerminalBar
from trainyard.tasks.staging.dataset import stage_listings, verify_staged
from trainyard.tasks.staging.listing import list_reference, listing_components
from trainyard.tasks.staging.progress import StagingProgress

STAGE = Stage(
    name="stage",
    product_type=StagedData,
    packages=("trainyard.tasks.staging",),
    libraries=("fsspec", "s3fs", "obstore"),
    verify=verify_staged,
    size=lambda data: sum(dataset.num_bytes for dataset in data.datasets),
)


@task(name="stage", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def stage(references: tuple[DataReference, ...], context: StageContext) -> "State[StageResult[StagedData]]":
    """Bring the data to this machine, verified; what is here already is not transferred again."""
    # Listed once: the key is that of the very versions that are staged.
    listings = [list_reference(reference) for reference in references]
    display = _Display()
    try:
        result = run_stage(
            STAGE,
            lambda: listing_components(listings),
            lambda key: stage_listings(listings, context, display.show),
            context,
        )
    finally:
        display.close()
    return as_state(result)


def look_up_staging(references: tuple[DataReference, ...], context: StageContext) -> StageResult[StagedData] | None:
    """What the data, as it is now, came to when it was staged before, on whatever machine; None where it was not."""
    return look_up(STAGE, listing_components([list_reference(reference) for reference in references]), context)


class _Display:
    """Shows a staging as log lines, as a bar in the terminal, and as a progress artifact on the run's page.

    A Prefect server that does not answer costs the page its bar, never the staging.
    """

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._bar = TerminalBar()
        self._artifact_id: UUID | None = None
        self._publishes = True

    def show(self, progress: StagingProgress) -> None:
        """Show how far it is."""
        self._logger.info("Staging: %s", progress)
        self._bar.show(progress)
        if self._publishes:
            try:
                self._publish(100 * progress.fraction, str(progress))
            except UNPUBLISHED as error:
                self._publishes = False
                self._logger.warning("Prefect does not show the staging: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        """Take the terminal's bar away."""
        self._bar.close()

    def _publish(self, percent: float, description: str) -> None:
        if self._artifact_id is None:
            created = create_progress_artifact(percent, key="staging-progress", description=description)
            assert isinstance(created, UUID)  # its type also allows for a coroutine, inside an event loop
            self._artifact_id = created
        else:
            update_progress_artifact(self._artifact_id, percent, description=description)
