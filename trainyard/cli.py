"""The console script ``trainyard``."""

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from trainyard import __version__
from trainyard.tasks.errors import DiskFullError, InvalidInputError, PermanentError, PipelineError
from trainyard.tasks.specs.policy import STAGE_NAMES, StageName

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from trainyard.flows.pipeline_file import PipelineFile
    from trainyard.tasks.artifacts.store import ArtifactStore

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

BAD_INPUT, FAILED = 2, 1
_OF_THIS_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}
_OF_THIS_MACHINE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trainyard {__version__}")
        raise typer.Exit


@app.callback()
def trainyard(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """Prefect pipelines from data in a datastore to a validated ONNX model."""


@app.command()
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
    try:
        pipeline = _load(file, overrides or [], refresh or [], from_stage, server=server)
        if server:
            _connect()
        from trainyard.flows.prefect_errors import prefect_errors
        from trainyard.flows.summary import render_summary
        from trainyard.flows.training_pipeline import training_pipeline

        with prefect_errors():
            result = training_pipeline(**pipeline.parameters())
    except PipelineError as error:
        _end(error)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        Console().print(render_summary(result), soft_wrap=True)


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


@app.command()
def up(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before existing deployments are moved to this folder.")
    ] = False,
    on_configured_server: Annotated[
        bool,
        typer.Option(
            "--on-configured-server", help="Deploy to, and start workers for, the server that PREFECT_API_URL names."
        ),
    ] = False,
) -> None:
    """Start a Prefect server with the deployments, and a cpu and a gpu worker, on this machine."""
    from trainyard.deployments.local.up import Consent, bring_up
    from trainyard.tasks.settings import Settings

    consent = Consent(confirm=typer.confirm, yes=yes, on_configured_server=on_configured_server)
    try:
        connection = bring_up(Settings(), typer.echo, consent)
    except PipelineError as error:
        _end(error)
    if connection.is_local:  # which nobody but our own commands finds by itself
        typer.echo(f"For Python and the prefect command: export PREFECT_API_URL={connection.shown}")
    typer.echo(f"Prefect UI: {connection.ui_address}   ('trainyard down' ends all of it)")


@app.command()
def down() -> None:
    """End what 'trainyard up' and 'trainyard run' started on this machine, with the runs in it."""
    from trainyard.deployments.local.down import bring_down
    from trainyard.tasks.settings import Settings

    if not bring_down(Settings(), typer.echo):
        typer.echo("Nothing of Trainyard runs in the background on this machine.")


@app.command()
def deploy(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before changing the server.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of the pool gpu that may train at once.")] = None,
    train_on: Annotated[
        list[str] | None, typer.Option(help="A further work pool that can train; may be repeated.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what an earlier deploy made and nobody asks for any more.")
    ] = False,
    project: Annotated[
        Path, typer.Option(help="Directory that relative paths in the parameters of runs are relative to.")
    ] = Path(),
) -> None:
    """Create or update work pools, deployments, limits and automations on the Prefect server."""
    from trainyard.deployments.deploy.command import Unwanted
    from trainyard.deployments.deploy.command import deploy as run_deploy
    from trainyard.deployments.deploy.wanted import Options
    from trainyard.tasks.settings import Settings

    options = Options(project=project.resolve(), gpus=gpus, train_on=tuple(train_on or ()))
    try:
        unwanted: Unwanted = "remove" if prune else "offer"
        done = run_deploy(Settings(), options, yes=yes, dry_run=dry_run, confirm=typer.confirm, unwanted=unwanted)
    except PipelineError as error:
        _end(error)
    raise typer.Exit(0 if done else FAILED)


@app.command()
def explain(
    run: Annotated[
        str | None, typer.Argument(help="The pipeline run's id, or its beginning; by default the latest run.")
    ] = None,
    stage: Annotated[str | None, typer.Argument(help="Only this stage.")] = None,
    store: Annotated[
        str | None, typer.Option(help="URL of the artifact store; by default TRAINYARD_STORE, or this machine's own.")
    ] = None,
) -> None:
    """Say why the stages of a pipeline run hit or missed their cache."""
    from trainyard.flows.explanation import explain_run, render_explanation

    if run in STAGE_NAMES and stage is None:  # trainyard explain export: that stage of the latest run
        run, stage = None, run
    try:
        explained = explain_run(_existing_store(store), run, stage)
    except PipelineError as error:
        _end(error)
    Console().print(render_explanation(*explained))


models_app = typer.Typer(no_args_is_help=True, help="The registry of validated models.")
app.add_typer(models_app, name="models")

ModelName = Annotated[str, typer.Argument(help="The model's name.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="URL of the artifact store; by default TRAINYARD_STORE, or this machine's own."),
]


@models_app.command("list")
def models_list(
    name: Annotated[str | None, typer.Argument(help="Show the versions of this model.")] = None, store: StoreUrl = None
) -> None:
    """List the registered models, or the versions of one."""
    from trainyard.flows.registry_view import render_models

    _show(lambda: render_models(_store(store), name))


@models_app.command("show")
def models_show(
    name: ModelName,
    version: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "latest",
    store: StoreUrl = None,
) -> None:
    """Show a version: its lineage, proof and files, and the champion's history."""
    from trainyard.flows.registry_view import render_version

    _show(lambda: render_version(_store(store), name, version))


@models_app.command("diff")
def models_diff(
    name: ModelName,
    first: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "champion",
    second: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "latest",
    store: StoreUrl = None,
) -> None:
    """Show what differs between two versions."""
    from trainyard.flows.registry_view import render_difference

    _show(lambda: render_difference(_store(store), name, first, second))


@models_app.command("promote")
def models_promote(
    name: ModelName,
    version: Annotated[str, typer.Argument(help="A number, or latest.")] = "latest",
    override: Annotated[
        str | None, typer.Option(help="Why to promote it although it is worse, or cannot be compared.")
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Make a version the champion, if it passed validation and is not worse than the present one."""
    from trainyard.flows.registry_view import describe_move
    from trainyard.tasks.registry.aliases import resolve
    from trainyard.tasks.registry.promote import promote

    def promoted() -> "RenderableType":
        place = _store(store)
        return describe_move(name, promote(place, name, resolve(place, name, version), override=override))

    _show(promoted)


@models_app.command("rollback")
def models_rollback(
    name: ModelName,
    reason: Annotated[str, typer.Option(help="Why; kept with the move.")] = "rolled back by hand",
    store: StoreUrl = None,
) -> None:
    """Give the champion back to the version that was it before."""
    from trainyard.flows.registry_view import describe_move
    from trainyard.tasks.registry.promote import roll_back

    _show(lambda: describe_move(name, roll_back(_store(store), name, reason)))


def _store(url: str | None) -> "ArtifactStore":
    from trainyard.tasks.artifacts.store import ArtifactStore
    from trainyard.tasks.settings import Settings

    try:
        return ArtifactStore(url or Settings().store_url)
    except PipelineError as error:
        _end(error)


def _existing_store(url: str | None) -> "ArtifactStore":
    """The store; one that is named must be there, or it is another one that is meant."""
    store = _store(url)
    if url is not None and not store.root.exists():
        raise InvalidInputError(f"--store {store.url}: there is no such place.")
    return store


def _show(render: "Callable[[], RenderableType]") -> None:
    try:
        shown = render()
    except PipelineError as error:
        _end(error)
    Console().print(shown, soft_wrap=True)


@app.command()
def gc(
    max_size: Annotated[
        str | None, typer.Option(help="Remove the least recently used until the rest fits, for example 50GB.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(min=0, help="Remove what was not used for more than so many days.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    store: Annotated[
        str | None, typer.Option(help="URL of the artifact store; by default TRAINYARD_STORE, or this machine's own.")
    ] = None,
) -> None:
    """Remove cached results, staged data and other things that were not used for long.

    What a live run or a registered model needs stays, and so does whatever was used within the last hour.
    """
    from trainyard.flows.cleaning import parse_limits, render_collection
    from trainyard.tasks.cleaning.collect import collect_garbage
    from trainyard.tasks.settings import Settings

    try:
        limits = parse_limits(max_size, keep_days)
        found = collect_garbage(_existing_store(store), Settings().home, limits, dry_run=dry_run)
    except PipelineError as error:
        _end(error)
    Console().print(render_collection(found, dry_run=dry_run), soft_wrap=True)


@app.command()
def doctor(
    datastores: Annotated[
        list[str] | None,
        typer.Option(
            "--datastore",
            help="Also check that this can be read: a URL (for an S3 server of your own with AWS_ENDPOINT_URL set), or "
            "a Prefect block, as block/NAME or NAME; may be repeated.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Leave out the two-rank allreduce.")] = False,
) -> None:
    """Say whether this machine can train, and if not, why and what to do."""
    from trainyard.deployments.doctor import run_doctor
    from trainyard.deployments.doctor.datastores import probe_datastore
    from trainyard.tasks.artifacts.location import Location
    from trainyard.tasks.settings import Settings

    url = Settings().store_url
    is_shared = url.startswith(("s3://", "s3a://"))
    store = (url, lambda url: Location(url).has_conditional_writes()) if is_shared else None
    raise typer.Exit(run_doctor(datastores=datastores or [], quick=quick, probe=probe_datastore, store=store))


@app.command("install-horovod")
def install_horovod() -> None:
    """Build Horovod for the torch of this environment and install it; a wheel built before is used again."""
    from trainyard.deployments.environment.horovod import install_horovod as install

    try:
        wheel = install()
    except PipelineError as error:
        _end(error)
    typer.echo(f"Installed {wheel.name}")


def _end(error: PipelineError) -> NoReturn:
    Console(stderr=True).print(Text.assemble((f"{type(error).__name__}: ", "bold red"), str(error)), soft_wrap=True)
    sys.exit(BAD_INPUT if isinstance(error, InvalidInputError) else FAILED)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except PipelineError as error:  # also what a command did not expect, such as a setting that cannot be
        _end(error)
    except OSError as error:
        if error.errno not in _OF_THIS_MACHINE:
            raise
        _end(_explain(error))


def _explain(error: OSError) -> PipelineError:
    """What is wrong with this machine's files, and what to do."""
    what = f"{error.filename or 'A file of this machine'}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{what} Make room there ('trainyard gc'), or set TRAINYARD_HOME to a folder with room.")
    return PermanentError(
        f"{what} Correct the path or its permissions; what Trainyard itself keeps on this machine is below "
        "TRAINYARD_HOME: set that to a folder that you may write."
    )
