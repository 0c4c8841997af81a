"""What ``trainyard run`` reads, checked before anything is started."""

from collections.abc import Iterable
from pathlib import Path

from trainyard.deployments.local.connection import configured_api, find_server
from trainyard.flows.pipeline_file import PipelineFile, load_pipeline_file
from trainyard.flows.pipeline_run import default_model_name
from trainyard.flows.preflight import problems_before_a_run
from trainyard.tasks.settings import Settings


def load_runnable(path: Path, overrides: Iterable[str], *, own_server: bool) -> PipelineFile:
    """Read a pipeline file and look at everything that it needs, in one go.

    The run checks the same again, and then also what only a Prefect server knows.

    Args:
        path: The file.
        overrides: As for ``load_pipeline_file``.
        own_server: Whether this machine's background server, if it runs, may be asked.

    Raises:
        InvalidInputError: Names every problem; no server was started, nothing launched.
    """
    settings = Settings()

    def check(pipeline: PipelineFile) -> list[str]:
        return problems_before_a_run(
            pipeline.estimator,
            pipeline.model_name or default_model_name(pipeline.estimator),
            pipeline.store or settings.store_url,
            pipeline.export,
            pipeline.validation,
            has_server=(find_server(settings) if own_server else configured_api()) is not None,
        )

    return load_pipeline_file(path, overrides, check)
