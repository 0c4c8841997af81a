"""What ``trainyard gc`` understands and shows."""

import re
from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trainyard.flows.summary import format_bytes
from trainyard.tasks.cleaning.collect import Collection
from trainyard.tasks.cleaning.plan import Limits, Plan
from trainyard.tasks.errors import InvalidInputError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_POWERS = "KMGT"
_DAY_S = 24 * 3600


def parse_limits(max_size: str | None, keep_days: float | None) -> Limits:
    """The limits that the options of the command line stand for.

    Raises:
        InvalidInputError: A size cannot be read, or nothing was asked for.
    """
    if max_size is None and keep_days is None:
        raise InvalidInputError(
            "Say how much to keep: --max-size 50GB, --keep-days 30, or both; --dry-run shows what would go."
        )
    return Limits(
        max_bytes=None if max_size is None else parse_size(max_size),
        keep_s=None if keep_days is None else keep_days * _DAY_S,
    )


def parse_size(text: str) -> int:
    """Bytes of a size such as ``50GB`` (powers of 1000), ``50GiB`` (of 1024) or ``1000000``.

    Raises:
        InvalidInputError: It is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise InvalidInputError(f"{text!r} is not a size: write for example 50GB, 500MB or 1.5TiB.")
    number, unit = found[1], (found[2] or "").upper()
    base = 1024 if unit.endswith("I") else 1000
    return int(float(number) * base ** (_POWERS.index(unit[0]) + 1 if unit else 0))


def render_collection(found: Collection, *, dry_run: bool) -> RenderableType:
    """What went, or would, by kind; and why more than the limit stays, where it does."""
    would = "would be removed" if dry_run else "removed"
    freed = found.store.num_bytes + found.home.num_bytes
    kept = found.store.kept_bytes + found.home.kept_bytes
    table = Table()
    table.add_column("what")
    table.add_column("where")
    table.add_column("number", justify="right")
    for place, plan in (("store", found.store), ("this machine", found.home)):
        for kind, number in sorted(Counter(item.kind for item in plan.items).items()):
            table.add_row(kind, place, f"{number:,}")
        table.add_row("files", place, f"{len(plan.blobs):,}")
    title = f"{format_bytes(freed)} {would}, {format_bytes(kept)} kept"
    return Group(Text(title, style="bold"), table, *map(Text, _remarks(found)))


def _remarks(found: Collection) -> Iterator[str]:
    places: list[tuple[str, list[Plan]]] = [("in the store", [found.store]), ("on this machine", [found.home])]
    for place, plans in [("", [found.store, found.home])] if found.shared else places:
        kept = sum(plan.kept_bytes for plan in plans)
        if found.limits.max_bytes is not None and kept > found.limits.max_bytes:
            why = _why_kept(sum(plan.young_bytes for plan in plans), sum(plan.needed_bytes for plan in plans))
            yield f"The limit of {format_bytes(found.limits.max_bytes)} is not met {place}".rstrip() + f": {why}."
        elif kept and found.limits.keep_s is not None and not any(plan.items or plan.blobs for plan in plans):
            yield f"Nothing goes {place}".rstrip() + f": {_why_nothing(found.limits.keep_s, plans)}."
    if found.server_bytes:
        yield f"Not counted, and never removed: {format_bytes(found.server_bytes)} of Prefect's own server."


def _why_nothing(keep_s: float, plans: list[Plan]) -> str:
    young, needed = sum(plan.young_bytes for plan in plans), sum(plan.needed_bytes for plan in plans)
    rest = sum(plan.kept_bytes for plan in plans) - young - needed
    used = f"{format_bytes(rest)} were used within the last {keep_s / _DAY_S:g} days"
    if not (young or needed):
        return used
    return "; ".join([_why_kept(young, needed), *([used] if rest else [])])


def _why_kept(young_bytes: int, needed_bytes: int) -> str:
    reasons = []
    if young_bytes:
        young = "are too young to go: used within the last hour, or written within the last day and not yet spoken of"
        reasons.append(f"{format_bytes(young_bytes)} {young}")
    if needed_bytes:
        reasons.append(f"{format_bytes(needed_bytes)} are needed by a live run or a registered model")
    return "; ".join(reasons) or "more came into use meanwhile"
