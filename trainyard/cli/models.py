"""The registry of validated models."""

from typing import Annotated

import typer

from trainyard.cli.output import StoreUrl, open_store, show

models_app = typer.Typer(no_args_is_help=True, help="The registry of validated models.")

ModelName = Annotated[str, typer.Argument(help="The model's name.")]


@models_app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Show the versions of this model.")] = None, store: StoreUrl = None
) -> None:
    """List the registered models, or the versions of one."""
    from trainyard.flows.registry_view import render_models

    show(render_models(open_store(store), name))


@models_app.command("show")
def show_version(
    name: ModelName,
    version: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "latest",
    store: StoreUrl = None,
) -> None:
    """Show a version: its lineage, proof and files, and the champion's history."""
    from trainyard.flows.registry_view import render_version

    show(render_version(open_store(store), name, version))


@models_app.command("diff")
def show_difference(
    name: ModelName,
    first: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "champion",
    second: Annotated[str, typer.Argument(help="A number, champion or latest.")] = "latest",
    store: StoreUrl = None,
) -> None:
    """Show what differs between two versions."""
    from trainyard.flows.registry_view import render_difference

    show(render_difference(open_store(store), name, first, second))


@models_app.command("promote")
def promote_version(
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

    place = open_store(store)
    show(describe_move(name, promote(place, name, resolve(place, name, version), override=override)))


@models_app.command("rollback")
def roll_back_champion(
    name: ModelName,
    reason: Annotated[str, typer.Option(help="Why; kept with the move.")] = "rolled back by hand",
    store: StoreUrl = None,
) -> None:
    """Give the champion back to the version that was it before."""
    from trainyard.flows.registry_view import describe_move
    from trainyard.tasks.registry.promote import roll_back

    show(describe_move(name, roll_back(open_store(store), name, reason)))
