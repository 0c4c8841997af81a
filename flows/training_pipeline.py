"""The training pipeline: stage → train → metrics → export → validate → register."""

from prefect import flow

from trainyard.flows.answers import answered
from trainyard.flows.pipeline_run import PipelineRunner, name_run
from trainyard.tasks.export.task import export_model
from trainyard.tasks.metrics.task import collect
from trainyard.tasks.registry.task import register
from trainyard.tasks.specs.estimator import PyTorch
from trainyard.tasks.specs.export import OnnxExport
from trainyard.tasks.specs.policy import Policies
from trainyard.tasks.specs.results import PipelineResult
from trainyard.tasks.specs.validation import OrtValidation
from trainyard.tasks.staging.task import stage
from trainyard.tasks.training.task import train
from trainyard.tasks.validation.task import validate

__all__ = ["training_pipeline"]


@flow(name="training-pipeline", flow_run_name=name_run, persist_result=True, result_serializer="compressed/json")
@answered
def training_pipeline(
    estimator: PyTorch,
    *,
    export: OnnxExport | None = OnnxExport(),
    validation: OrtValidation = OrtValidation(),
    model_name: str | None = None,
    policies: Policies = None,
    store: str | None = None,
) -> PipelineResult:
    """Train a PyTorch model and prove its ONNX export, from data in a datastore to a registered model.

    Args:
        estimator: The training job: script, parameters, data and topology.
        export: How the model becomes ONNX; none ends the pipeline after the metrics.
        validation: What the ONNX model must prove before it is registered.
        model_name: Name in the registry; by default the name of the source directory.
        policies: Retries, timeout and cache by stage, in place of the defaults.
        store: URL of the artifact store; by default this machine's own.

    Returns:
        Final metrics, the registered model, the verdict, and how each stage went.

    Raises:
        InvalidInputError: Something asked for cannot run; names every problem. Nothing was launched.
        PipelineError: A stage failed; see ``trainyard.errors``.
    """
    run = PipelineRunner.prepare(estimator, model_name, policies, store, export, validation)
    data, trained = run.training(stage, train)
    metrics = run.stage("metrics", collect, trained)
    if export is None:
        return run.result(metrics)
    bundle = run.stage("export", export_model, export, trained, data)
    validated = run.stage("validate", validate, validation, bundle, trained, run.champion(validation, bundle))
    lineage = run.lineage(data, trained, metrics)
    model = run.stage("register", register, run.model_name, bundle, validated, lineage)
    return run.result(metrics, bundle, validated, model)
