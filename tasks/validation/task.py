"""The Prefect task of the validation stage."""

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.products import Champion, OnnxBundle, TrainedRun, ValidatedModel
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.errors import ValidationFailedError
from trainyard.tasks.models.key import LIBRARIES, model_components
from trainyard.tasks.publishing import best_effort
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.validation.curves import digest_curves, read_curves
from trainyard.tasks.validation.rendering import render_markdown
from trainyard.tasks.validation.report import ValidationReport
from trainyard.tasks.validation.validate import validate_model

VALIDATE = Stage(
    name="validate",
    product_type=ValidatedModel,
    packages=("trainyard.tasks.validation",),
    libraries=("onnxruntime", "numpy", "scikit-learn", "matplotlib", *LIBRARIES),
)

_LOADED_BY = ("inputs", "module", "module_params")


@task(name="validate", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def validate(
    settings: OrtValidation,
    bundle: OnnxBundle,
    trained: TrainedRun,
    champion: Champion | None,
    context: StageContext,
) -> "State[StageResult[ValidatedModel]]":
    """Prove that the ONNX model gives the trained model's answers, and show the report, whatever it says."""

    def components() -> dict[str, str]:
        curves = digest_curves(read_curves(trained.records, context.store))
        return validation_components(settings, bundle, trained.outputs, trained.source, context.store, champion, curves)

    try:
        result = run_stage(
            VALIDATE,
            components,
            lambda key: validate_model(
                settings,
                bundle,
                trained.outputs,
                context,
                source=trained.source,
                champion=champion,
                records=trained.records,
            ),
            context,
        )
    except ValidationFailedError as error:
        if error.report_uri is not None:
            _show_report(Location(error.report_uri).read_bytes())
        raise
    _show_report(context.store.read_bytes(result.product.report))
    return as_state(result)


def validation_components(
    settings: OrtValidation,
    bundle: OnnxBundle,
    outputs: ArtifactRef,
    source: ArtifactRef | None,
    store: ArtifactStore,
    champion: Champion | None = None,
    curves: str | None = None,
) -> dict[str, str]:
    """What decides a report, beside its code and libraries.

    How the model was loaded and described counts, too: another range of inputs can be the same bundle, but random
    samples are drawn from it. So do the curves that the page shows, and not the records that they are drawn from, which
    hold times: a training that is run again and comes to the same is not validated again.
    """
    exported = bundle.settings.key_components()
    return {
        **({"input:curves": curves} if curves else {}),
        **model_components(bundle.settings, outputs, source, store),
        **({"input:champion": f"{champion.version} {champion.bundle.sha256}"} if champion else {}),
        "input:bundle": bundle.bundle.sha256,
        "input:model_file": bundle.model_file,
        **{f"input:{name}": exported[f"config:{name}"] for name in _LOADED_BY},
        **settings.key_components(),
    }


def _show_report(data: bytes) -> None:
    if TaskRunContext.get() is None:
        return
    report = ValidationReport.model_validate_json(data)
    with best_effort("the validation report"):
        create_markdown_artifact(
            key="validation-report",
            markdown=render_markdown(report),
            description=f"ONNX Runtime against torch: {'passed' if report.passed else 'failed'}",
        )
