"""The Prefect task of the export stage."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from trainyard.tasks.artifacts.products import OnnxBundle, StagedData, TrainedRun
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.keys import StageKey
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.export.export import export_onnx
from trainyard.tasks.export.origin import origin_of
from trainyard.tasks.models.key import LIBRARIES, model_components
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.specs.export import OnnxExport

EXPORT = Stage(
    name="export",
    product_type=OnnxBundle,
    packages=("trainyard.tasks.export",),
    libraries=("onnx", "onnx-ir", "onnxscript", *LIBRARIES),
)


@task(name="export", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def export_model(
    settings: OnnxExport, trained: TrainedRun, data: StagedData, context: StageContext
) -> "State[StageResult[OnnxBundle]]":
    """Turn the model that training saved into a checked ONNX bundle."""

    def components() -> dict[str, str]:
        return export_components(settings, trained.outputs, trained.source, context.store)

    def work(key: StageKey) -> OnnxBundle:
        return export_onnx(
            settings,
            trained.outputs,
            context,
            source=trained.source,
            origin=origin_of(trained, data),
            left_outside=trained.left_outside,
        )

    return as_state(run_stage(EXPORT, components, work, context))


def export_components(
    settings: OnnxExport, outputs: ArtifactRef, source: ArtifactRef | None, store: ArtifactStore
) -> dict[str, str]:
    """What decides an export's result, beside its code and libraries; the source where its classes are needed."""
    return {**model_components(settings, outputs, source, store), **settings.key_components()}
