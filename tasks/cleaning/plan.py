"""What to remove: a decision about values, without a look at any disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

YOUNG_S = 3600.0
"""What was used within this time stays, whatever the limits say: a run may be about to need it."""

UNREFERENCED_S = 24 * 3600.0
"""Bytes that nothing refers to stay this long: whoever wrote them may be about to say what they are."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that items need, kept once however many need them."""

    id: str
    """What tells it from others."""

    num_bytes: int
    """Its size."""

    last_used_s: float
    """When it was last written or used, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is kept or removed as a whole."""

    kind: str
    """What it is, for people: ``cached result``, ``dataset``, ..."""

    id: str
    """What tells it from others."""

    blobs: frozenset[str]
    """Ids of the blobs that it needs."""

    last_used_s: float
    """When it was last used, in seconds since 1970."""

    protected: bool = False
    """Whether a live run or a registered model needs it."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that there is."""

    items: Sequence[Item]
    """What is kept or removed as a whole."""

    blobs: Mapping[str, Blob]
    """The bytes, by their id."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept. None is no limit."""

    max_bytes: int | None = None
    """Size of everything together."""

    keep_s: float | None = None
    """Seconds that something unused is kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes."""

    items: tuple[Item, ...]
    """Items, those unused for longest first."""

    blobs: tuple[Blob, ...]
    """Blobs that no item left needs."""

    kept_bytes: int
    """Size of what stays."""

    young_bytes: int = 0
    """Of it, what stays because it was used, or written, just now."""

    needed_bytes: int = 0
    """Of it, what stays because a live run or a registered model needs it."""

    @property
    def num_bytes(self) -> int:
        """What the removal frees."""
        return sum(blob.num_bytes for blob in self.blobs)


def plan_removal(inventory: Inventory, limits: Limits, now_s: float) -> Plan:
    """Choose what goes: first what was unused for too long, then the least recently used until the rest fits.

    What is protected or young stays, with every blob that it needs, even where the limit is missed for it.

    Args:
        inventory: What there is.
        limits: How much is kept.
        now_s: The time, in seconds since 1970.
    """
    blobs = inventory.blobs
    needed = Counter(blob for item in inventory.items for blob in item.blobs if blob in blobs)
    fresh = {blob.id for blob in blobs.values() if now_s - blob.last_used_s < _least_age_s(needed[blob.id])}
    kept_bytes = sum(blob.num_bytes for blob in blobs.values() if needed[blob.id] or blob.id in fresh)
    removed: list[Item] = []
    for item in sorted(inventory.items, key=lambda item: (item.last_used_s, item.id)):
        unused_s = now_s - item.last_used_s
        too_old = limits.keep_s is not None and unused_s > limits.keep_s
        too_much = limits.max_bytes is not None and kept_bytes > limits.max_bytes
        if item.protected or unused_s < YOUNG_S or not (too_old or too_much):
            continue
        removed.append(item)
        needed.subtract(blob for blob in item.blobs if blob in blobs)
        freed = (blob for blob in item.blobs if blob in blobs and not needed[blob] and blob not in fresh)
        kept_bytes -= sum(blobs[blob].num_bytes for blob in freed)
    unneeded = [blob for blob in blobs.values() if not needed[blob.id] and blob.id not in fresh]
    gone = {id(item) for item in removed}
    staying = [item for item in inventory.items if id(item) not in gone]
    protected = {blob for item in staying if item.protected for blob in item.blobs if blob in blobs}
    young = {blob for item in staying if now_s - item.last_used_s < YOUNG_S for blob in item.blobs if blob in blobs}
    return Plan(
        tuple(removed),
        tuple(sorted(unneeded, key=lambda blob: blob.last_used_s)),
        kept_bytes,
        young_bytes=sum(blobs[blob].num_bytes for blob in (young | fresh) - protected),
        needed_bytes=sum(blobs[blob].num_bytes for blob in protected),
    )


def common(first: Plan, second: Plan) -> Plan:
    """What both of two plans remove: something may have been used between them."""
    items = {item.id for item in first.items}
    blobs = {blob.id for blob in first.blobs}
    return Plan(
        tuple(item for item in second.items if item.id in items),
        tuple(blob for blob in second.blobs if blob.id in blobs),
        second.kept_bytes,
        second.young_bytes,
        second.needed_bytes,
    )


def _least_age_s(num_items: int) -> float:
    """How long a blob stays at least: one that no item ever needed may be waiting for the item that says what it is."""
    return YOUNG_S if num_items else UNREFERENCED_S
