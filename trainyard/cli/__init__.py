"""The console script ``trainyard``.

What a command needs is imported when it runs: ``trainyard --help`` does not wait for Prefect.
"""

from typing import Annotated

import typer

from trainyard import __version__
from trainyard.cli.cleaning import gc
from trainyard.cli.machine import deploy, doctor, down, install_horovod, up
from trainyard.cli.models import models_app
from trainyard.cli.output import Commands
from trainyard.cli.pipelines import explain, run

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


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


for command in (run, up, down, deploy, explain, gc, doctor, install_horovod):
    app.command(command.__name__.replace("_", "-"))(command)
app.add_typer(models_app, name="models")


def main() -> None:
    """Entry point of the console script."""
    app()
