"""``trainyard deploy``: show what would change on the server, ask, and make it so."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from prefect.client.orchestration import get_client
from rich.console import Console
from rich.text import Text

from trainyard.deployments.deploy.leftovers import leftovers, render_leftover
from trainyard.deployments.deploy.plan import Change, apply, plan
from trainyard.deployments.deploy.wanted import Options, source_version, wanted_resources
from trainyard.deployments.local.connection import find_server
from trainyard.flows.prefect_errors import prefect_errors
from trainyard.tasks.credentials import redacted_url
from trainyard.tasks.errors import InvalidInputError, PrefectUnavailableError
from trainyard.tasks.settings import Settings

Unwanted = Literal["offer", "remove", "ignore"]


def always(change: Change) -> bool:
    """Every change is asked about."""
    return True


def deploy(
    settings: Settings,
    options: Options,
    *,
    yes: bool,
    dry_run: bool,
    confirm: Callable[[str], bool],
    asks: Callable[[Change], bool] = always,
    unwanted: Unwanted = "offer",
) -> bool:
    """Put everything onto the server that is configured, or onto this machine's own, and say what changes.

    Args:
        settings: This machine's.
        options: What the person says.
        yes: Do not ask.
        dry_run: Only show.
        confirm: Asks.
        asks: Whether a change is asked about; where none of them is, all are made.
        unwanted: What becomes of things that we made and that nobody asks for any more: removed where the person agrees
            (``offer``; without anybody to ask they are named and stay), removed in any case, or not looked for.

    Returns:
        Whether the server is, or was made, as it should be.

    Raises:
        InvalidInputError: There is nobody to ask, or something named does not exist.
        PrefectUnavailableError: No server is known, or it does not answer.
    """
    if find_server(settings) is None:
        raise PrefectUnavailableError(
            "No Prefect server is known: set PREFECT_API_URL, or start one on this machine with 'trainyard up'."
        )
    console = Console()
    if source_version(options.project).endswith("-dirty"):
        note = f"Note: {options.project} has changes that are not committed; runs use its files as they are."
        console.print(Text(note))  # in a plain string, rich takes [x] for markup
    url = settings.failure_webhook_url
    options = replace(options, webhook_url=url.get_secret_value() if url else None, lost_after_s=settings.lost_after_s)
    with prefect_errors(), get_client(sync_client=True) as client:
        client.raise_for_api_version_mismatch_once()
        wanted = wanted_resources(options)
        changes = plan(client, wanted)
        old = [] if unwanted == "ignore" else leftovers(client, options, wanted)
        for line in (*(change.render() for change in changes), *map(render_leftover, old)):
            console.print(line, soft_wrap=True)
        if dry_run and (changes or old):
            return False
        if changes and not (yes or not any(map(asks, changes)) or _ask(confirm)):
            return False
        apply(client, changes)
        removed = old if old and (unwanted == "remove" or _agrees_to_remove(yes, confirm)) else []
        for resource in removed:
            resource.remove(client)
        if old and not removed:
            console.print("They stay; 'trainyard deploy --prune' removes them.")
    count = len(changes) + len(removed)
    place, changed = redacted_url(str(client.api_url)), f"; {count} things changed" if count else ""
    console.print(Text(f"The deployments on {place} are up to date{changed}."))
    return True


def _agrees_to_remove(yes: bool, confirm: Callable[[str], bool]) -> bool:
    """``--yes`` is for changes that were asked for; a removal may take what somebody else still uses."""
    return not yes and sys.stdin.isatty() and confirm("Remove what is not asked for any more?")


def _ask(confirm: Callable[[str], bool]) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInputError(
            "There is nobody to ask whether to change the server: add --yes; 'trainyard deploy --dry-run' only shows."
        )
    return confirm("Change the server so?")
