"""This machine and the Prefect server: start, end, deploy, look whether training would work."""

from pathlib import Path
from typing import Annotated

import typer

from trainyard.cli.output import FAILED


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
    connection = bring_up(Settings(), typer.echo, consent)
    if connection.is_local:  # which nobody but our own commands finds by itself
        typer.echo(f"For Python and the prefect command: export PREFECT_API_URL={connection.shown}")
    typer.echo(f"Prefect UI: {connection.ui_address}   ('trainyard down' ends all of it)")


def down() -> None:
    """End what 'trainyard up' and 'trainyard run' started on this machine, with the runs in it."""
    from trainyard.deployments.local.down import bring_down
    from trainyard.tasks.settings import Settings

    if not bring_down(Settings(), typer.echo):
        typer.echo("Nothing of Trainyard runs in the background on this machine.")


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
    unwanted: Unwanted = "remove" if prune else "offer"
    done = run_deploy(Settings(), options, yes=yes, dry_run=dry_run, confirm=typer.confirm, unwanted=unwanted)
    raise typer.Exit(0 if done else FAILED)


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


def install_horovod() -> None:
    """Build Horovod for the torch of this environment and install it; a wheel built before is used again."""
    from trainyard.deployments.environment.horovod import install_horovod as install

    wheel = install()
    typer.echo(f"Installed {wheel.name}")
