"""Run a pipeline, and say how its stages came to what they are."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainyard.cli.output import StoreUrl, existing_store, show
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.policy import STAGE_NAMES, StageName

if TYPE_CHECKING:
    from trainyard.flows.pipeline_file import PipelineFile


def run(
    file: Annotated[Path, typer.Argument(help="The pipeline, as a YAML or JSON file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the file, for example estimator.script_params.--epochs=5."),
    ] = None,
    refresh: Annotated[
        list[str] | None,
        typer.Option(help="Run this stage even if a result of it is cached; may be repeated."),
    ] = None,
    from_stage: Annotated[
        str | None, typer.Option(help="Run this stage and all after it, even if results of them are cached.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a summary.")] = False,
    server: Annotated[
        bool, typer.Option(help="Use this machine's background server, and start it where it does not run.")
    ] = True,
) -> None:
    """Run the training pipeline that a file describes, and print a summary."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # of the embedded server, read by Prefect
    pipeline = _load(file, overrides or [], refresh or [], from_stage, server=server)
    if server:
        _connect()
    from trainyard.flows.prefect_errors import prefect_errors
    from trainyard.flows.summary import render_summary
    from trainyard.flows.training_pipeline import training_pipeline

    with prefect_errors():
        result = training_pipeline(**pipeline.parameters())
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        show(render_summary(result))


def _load(
    file: Path, overrides: list[str], refresh: list[str], from_stage: str | None, *, server: bool
) -> "PipelineFile":
    """The pipeline, of which nothing is known that would keep it from running; nothing is started to find out."""
    from trainyard.deployments.local.run_file import load_runnable

    stages = [*_known_stages("--refresh", refresh), *_stages_from(from_stage)]
    changes = [*overrides, *(f"policies.{name}.cache=refresh" for name in stages)]
    pipeline = load_runnable(file, changes, own_server=server)
    for option, names in (("--refresh", refresh), ("--from-stage", [from_stage] if from_stage else [])):
        missing = [name for name in names if name not in pipeline.stages]
        if missing:
            raise InvalidInputError(
                f"{option} {' '.join(missing)}: this pipeline has no such stage, for it says export: null; it ends "
                f"after {pipeline.stages[-1]}."
            )
    return pipeline


def _stages_from(first: str | None) -> list[str]:
    """A stage and all after it."""
    if first is None:
        return []
    [known] = _known_stages("--from-stage", [first])
    return list(STAGE_NAMES[STAGE_NAMES.index(known) :])


def _known_stages(option: str, names: list[str]) -> list[StageName]:
    unknown = [name for name in names if name not in STAGE_NAMES]
    if unknown:
        raise InvalidInputError(f"{option} {' '.join(unknown)}: the stages are {', '.join(STAGE_NAMES)}.")
    return [name for name in STAGE_NAMES if name in names]


def _connect() -> None:
    """Use the background server for the runs of this process; say so where it was started and will stay."""
    from trainyard.deployments.local.connection import connect
    from trainyard.tasks.settings import Settings

    def say(line: str) -> None:
        typer.echo(line, err=True)

    connection = connect(Settings(), say)
    if connection.was_started:
        say(f"Started a Prefect server, {connection.ui_address}. It stays for later runs; 'trainyard down' ends it.")


def explain(
    run: Annotated[
        str | None, typer.Argument(help="The pipeline run's id, or its beginning; by default the latest run.")
    ] = None,
    stage: Annotated[str | None, typer.Argument(help="Only this stage.")] = None,
    store: StoreUrl = None,
) -> None:
    """Say why the stages of a pipeline run hit or missed their cache."""
    from trainyard.flows.explanation import explain_run, render_explanation

    if run in STAGE_NAMES and stage is None:  # trainyard explain export: that stage of the latest run
        run, stage = None, run
    explained = explain_run(existing_store(store), run, stage)
    Console().print(render_explanation(*explained))
