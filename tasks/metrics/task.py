"""The Prefect task of the metrics stage."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext

from trainyard.tasks.artifacts.products import CollectedMetrics, TrainedRun
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import Stage, StageContext, StageResult, run_stage
from trainyard.tasks.caching.states import as_state
from trainyard.tasks.metrics.collect import collect_metrics, read_plots, read_report
from trainyard.tasks.metrics.markdown import render_markdown
from trainyard.tasks.publishing import best_effort
from trainyard.tasks.retries import retry_if_transient
from trainyard.tasks.runtime.live import format_value

SUMMARY_KEY = "training-metrics"
TABLE_KEY = "training-metrics-finals"
RESUMED = "What was logged since the checkpoint that this attempt went on from; what earlier ones logged is not here."

STAGE = Stage(
    name="metrics",
    product_type=CollectedMetrics,
    packages=("trainyard.tasks.metrics",),
    libraries=("matplotlib", "tensorboard", "mlflow-skinny"),
)


@task(name="metrics", retry_condition_fn=retry_if_transient, cache_policy=NO_CACHE)
def collect(trained: TrainedRun, context: StageContext) -> "State[StageResult[CollectedMetrics]]":
    """Collect what the ranks logged, and show it on this run's page in Prefect."""
    components = {"input:records": trained.records.sha256}
    result = run_stage(STAGE, components, lambda key: collect_metrics(trained.records, context), context)
    if TaskRunContext.get() is not None:
        with best_effort("the metrics"):
            _publish(result.product, context.store, resumed=trained.resumed)
    return as_state(result)


def _publish(metrics: CollectedMetrics, store: ArtifactStore, *, resumed: bool) -> None:
    """Attach the summary and the final values to the task run; a cached result has a page of its own, too."""
    report = read_report(metrics, store)
    if resumed:
        report = report.model_copy(update={"notes": (RESUMED, *report.notes)})
    create_markdown_artifact(
        render_markdown(report, read_plots(metrics, store)),
        key=SUMMARY_KEY,
        description="What training logged",
    )
    finals = [{"metric": name, "value": format_value(value)} for name, value in report.finals.items()]
    create_table_artifact(finals, key=TABLE_KEY, description="Final value of each metric")
