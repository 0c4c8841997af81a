"""Remove what nobody needs any more."""

from typing import Annotated

import typer

from trainyard.cli.output import StoreUrl, existing_store, show


def gc(
    max_size: Annotated[
        str | None, typer.Option(help="Remove the least recently used until the rest fits, for example 50GB.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(min=0, help="Remove what was not used for more than so many days.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    store: StoreUrl = None,
) -> None:
    """Remove cached results, staged data and other things that were not used for long.

    What a live run or a registered model needs stays, and so does whatever was used within the last hour.
    """
    from trainyard.flows.cleaning import parse_limits, render_collection
    from trainyard.tasks.cleaning.collect import collect_garbage
    from trainyard.tasks.settings import Settings

    limits = parse_limits(max_size, keep_days)
    found = collect_garbage(existing_store(store), Settings().home, limits, dry_run=dry_run)
    show(render_collection(found, dry_run=dry_run))
