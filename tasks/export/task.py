"""The Prefect task of the export stage."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from trainyard.tasks.artifacts.digests import canonical_json
from trainyard.tasks.artifacts.products import OnnxBundle, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.specs.export import OnnxExport

EXPORT = Stage(
    name="export",
    product_type=OnnxBundle,
    packages=("trainyard.tasks.export",),
    libraries=("torch", "onnx", "onnxscript"),
)


@task(name="export", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def export_model(settings: OnnxExport, trained: TrainedRun, context: StageContext) -> "State[StageResult[OnnxBundle]]":
    """Turn the program that training saved into a checked ONNX bundle."""
    components = export_components(settings, trained.outputs)

    def work(key: StageKey) -> OnnxBundle:
        return export_onnx(settings, trained.outputs, context, trained.left_outside)

    return as_state(run_stage(EXPORT, components, work, context))


def export_components(settings: OnnxExport, outputs: ArtifactRef) -> dict[str, str]:
    """What decides an export's result, beside its code and libraries."""
    fields = settings.model_dump(mode="json").items()
    return {
        "input:outputs": outputs.sha256,
        **{f"config:{name}": canonical_json(value).decode() for name, value in fields},
    }
