"""The Prefect task of the register stage."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.artifacts.products import Lineage, OnnxBundle, RegisteredModel, ValidatedModel
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.registry.register import register_model, verify_registered
from trainyard.tasks.registry.versions import version_location
from trainyard.tasks.retries import retry_if_transient

REGISTER = Stage(
    name="register",
    product_type=RegisteredModel,
    packages=("trainyard.tasks.registry",),
    verify=verify_registered,
)


@task(name="register", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def register(
    name: str, bundle: OnnxBundle, validated: ValidatedModel, lineage: Lineage, context: StageContext
) -> "State[StageResult[RegisteredModel]]":
    """Make the validated model the next version of its name."""
    result = run_stage(
        REGISTER,
        lambda: registration_components(name, bundle, validated, lineage),
        lambda key: register_model(name, bundle, validated, lineage, context),
        context,
    )
    uri = version_location(context.store, name, result.product.version).url  # a store may have moved since
    return as_state(result.model_copy(update={"product": result.product.model_copy(update={"uri": uri})}))


def registration_components(
    name: str, bundle: OnnxBundle, validated: ValidatedModel, lineage: Lineage
) -> dict[str, str]:
    """What decides a registration, beside its code.

    Not the pipeline run, nor addresses of data (their digests stand for them), nor the training metrics:
    those follow from the rest, and some are times.
    """
    arguments = [lineage.datasets.get(argument, argument) for argument in lineage.arguments]
    return {
        "config:name": name,
        "input:bundle": bundle.bundle.sha256,
        "input:verdict": validated.verdict_sha256,
        "lineage:source": lineage.source_sha256,
        "lineage:datasets": digest_value(sorted(lineage.datasets.values())),
        "lineage:arguments": digest_value(arguments),
        "lineage:topology": lineage.topology,
        "lineage:environment": digest_value(lineage.environment),
    }
