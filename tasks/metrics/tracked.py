"""What a script logged with other libraries than ours: series like any other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainyard.tasks.metrics.event_files import read_event_files
from trainyard.tasks.metrics.mlflow_runs import read_mlflow_runs
from trainyard.tasks.metrics.reading import RankRecords, Record

READERS: Mapping[str, Callable[[Path], tuple[list[Record], list[str]]]] = {
    "tensorboard": read_event_files,
    "mlflow": read_mlflow_runs,
}
"""By the folder beside the ranks' records; each gives records, and notes for people."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """The ranks' records with what other libraries logged.

    Args:
        ranks: By rank.
        notes: What a reader should know.
    """

    ranks: list[RankRecords]
    notes: tuple[str, ...]


def add_tracked(ranks: Sequence[RankRecords], directory: Path) -> Tracked:
    """Add what other libraries logged to rank 0: neither TensorBoard nor MLflow says which rank wrote.

    A name that the script also logs by other means is prefixed with the library's, as in ``tensorboard/loss``.

    Args:
        ranks: The ranks' records.
        directory: Where they were read from.
    """
    first = next((rank for rank in ranks if rank.rank == 0), RankRecords(0, {}, (), is_cut=False))
    notes: list[str] = []
    added = False
    for library, read in READERS.items():
        if not (directory / library).is_dir():
            continue
        records, more = read(directory / library)
        notes += more
        taken = {str(record["name"]) for record in first.records}
        first = replace(first, records=(*first.records, *_renamed(records, taken, library)))
        added |= bool(records)
    others = [rank for rank in ranks if rank.rank != 0]
    return Tracked([first, *others] if added else list(ranks), tuple(notes))


def _renamed(records: Iterable[Record], taken: set[str], library: str) -> Iterable[Record]:
    for record in records:
        name = str(record["name"])
        yield {**record, "name": f"{library}/{name}"} if name in taken else record
