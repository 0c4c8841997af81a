"""Show the answers as a table, as they come in."""

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainyard.deployments.doctor.check import Check
from trainyard.deployments.doctor.examine import check_machine

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def run_doctor(
    datastores: Sequence[str] = (),
    *,
    probe: Callable[[str], None] | None = None,
    store: tuple[str, Callable[[str], bool]] | None = None,
    quick: bool = False,
) -> int:
    """Look at this machine, print what was found, and say whether it can train.

    Args:
        datastores: URLs of the datastores, or names of the blocks, that must be reachable.
        probe: Reaches for a datastore, and raises a ``PipelineError`` or ``OSError`` where it cannot be reached.
        store: URL of an artifact store that several machines can reach, and what tries its conditional writes.
        quick: Leave out the all-reduce over two processes, which takes some seconds.

    Returns:
        The exit status: 1 where a check failed, else 0.
    """
    console = Console()
    with console.status("looking at this machine"):
        checks = list(check_machine(datastores, probe=probe, store=store, quick=quick))
    console.print(render(checks))
    console.print(verdict(checks))
    return 1 if any(check.status == "fail" for check in checks) else 0


def verdict(checks: Iterable[Check]) -> Text:
    """Whether the machine can train; not as a plain string, in which rich takes ``[x]`` for markup."""
    failed = [check.title for check in checks if check.status == "fail"]
    return Text(f"This machine cannot train yet: {', '.join(failed)}." if failed else "This machine can train.")


def render(checks: Iterable[Check]) -> Table:
    """One row a check: its status, what was found and, below it, what to do."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("status", "name", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n→ {check.remedy}", style="italic")
        table.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), found)
    return table
