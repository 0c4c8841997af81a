"""The Prefect task of the stage stage."""

from functools import partial

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from trainyard.tasks.artifacts.products import StagedData
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.staging.dataset import stage_listings, verify_staged
from trainyard.tasks.staging.listing import list_reference, listing_components

STAGE = Stage(
    name="stage",
    product_type=StagedData,
    packages=("trainyard.tasks.staging",),
    libraries=("fsspec", "s3fs"),
    verify=verify_staged,
    size=lambda data: sum(dataset.num_bytes for dataset in data.datasets),
)


@task(name="stage", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def stage(references: tuple[DataReference, ...], context: StageContext) -> "State[StageResult[StagedData]]":
    """Bring the data to this machine, verified; what is here already is not transferred again."""
    logger = get_run_logger()
    # Listed once: the key is that of the very versions that are staged.
    listings = [list_reference(reference) for reference in references]
    result = run_stage(
        STAGE,
        listing_components(listings),
        lambda key: stage_listings(listings, context, partial(logger.info, "Staging: %s")),
        context,
    )
    return as_state(result)
