"""What a training script tells the pipeline: ``from trainyard import Run``.

Every rank appends its records to a file of its own below ``$TRAINYARD_METRICS_DIR`` (the format is in
``trainyard.tasks.runtime.records``). Without that variable the same calls print readable lines, so that a
script runs as well by hand. Only the standard library is imported; numbers may come from numpy or torch.

JSON has no NaN and no infinities, but a diverging loss is worth keeping: they are written as the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which ``float`` reads back.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trainyard.tasks.runtime.checkpoints import checkpoint_directory, writing_checkpoint
from trainyard.tasks.runtime.ranks import Rank
from trainyard.tasks.runtime.records import METRICS_DIRECTORY_VARIABLE, records_file

if TYPE_CHECKING:
    from torch.nn import Module

RUN_ID_VARIABLE = "TRAINYARD_RUN_ID"
OUTPUTS = "outputs"
IMAGES = "images"

RecordWriter = Callable[[dict[str, Any]], None]


class Plot(Protocol):
    """A matplotlib figure, or the ``pyplot`` module."""

    def savefig(self, fname: Any, /, *, format: str) -> Any:
        """Write the picture to a file."""


class Run:
    """The training run that this process belongs to: ``run = Run.get_context()``.

    Args:
        id: The run's id.
        rank: This process among the ranks.
        write: Takes each record.
        outputs: The run's ``outputs/`` directory, collected when training ends.
    """

    _context: ClassVar["Run | None"] = None

    def __init__(self, id: str, rank: Rank, write: RecordWriter, outputs: Path) -> None:
        self.id = id
        self.rank = rank.rank
        self._world_size = rank.world_size
        self._write = write
        self._outputs = outputs
        self._num_images: dict[str, int] = {}

    @classmethod
    def get_context(cls) -> "Run":
        """The run of this process; always the same object."""
        if cls._context is None:
            cls._context = cls._from_environment(os.environ)
        return cls._context

    @classmethod
    def _from_environment(cls, environment: Mapping[str, str]) -> "Run":
        rank = Rank.from_environment(environment)
        directory = environment.get(METRICS_DIRECTORY_VARIABLE)
        write = _record_appender(Path(directory), rank) if directory else _record_printer(rank)
        return cls(environment.get(RUN_ID_VARIABLE, "offline"), rank, write, Path.cwd() / OUTPUTS)

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Log one value of a metric.

        Two names have a meaning for what is shown while training runs: ``epoch``, and ``progress`` (the
        fraction done, 0 to 1). ``samples_per_second``, logged on every rank, is added up over the ranks.

        Args:
            name: The metric; a slash groups metrics, as in ``train/loss`` and ``test/loss``.
            value: A number, a numpy scalar or a tensor of one element; NaN and infinities are kept.
            step: Position on the metric's axis, for example the epoch; counted from 0 when left out.

        Raises:
            TypeError: The value is not a number.
        """
        self._record("scalar", name, _number(name, value), step=None if step is None else int(step))

    def log_list(self, name: str, value: Iterable[Any]) -> None:
        """Log a list of values (or a one-dimensional array)."""
        self._record("list", name, _plain(value))

    def log_row(self, name: str, **columns: Any) -> None:
        """Add one row to a table: ``run.log_row("classes", digit=3, recall=0.98)``."""
        self._record("row", name, _plain(columns))

    def log_table(self, name: str, value: Mapping[str, Iterable[Any]]) -> None:
        """Log a whole table.

        Args:
            name: The table.
            value: Its columns, all of the same length: lists, tuples, arrays or tensors.

        Raises:
            TypeError: It is no mapping of names to columns.
            ValueError: The columns differ in length.
        """
        columns = _columns(name, value)
        lengths = {column: len(cells) for column, cells in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"log_table({name!r}): every column needs as many cells, got {lengths}.")
        self._record("table", name, columns)

    def log_confusion_matrix(self, name: str, value: Any, class_labels: Sequence[Any] | None = None) -> None:
        """Log a confusion matrix.

        Args:
            name: What it is of.
            value: Square matrix of counts, rows for true classes (nested lists or an array); or
                ``{"data": {"class_labels": [...], "matrix": [[...]]}}``.
            class_labels: One label a class; 0, 1, 2, … by default.

        Raises:
            ValueError: The matrix is not square, or the labels do not fit it.
        """
        if isinstance(value, Mapping):
            class_labels, value = value["data"]["class_labels"], value["data"]["matrix"]
        matrix = _plain(value)
        labels = list(range(len(matrix))) if class_labels is None else _plain(class_labels)
        if any(len(row) != len(matrix) for row in matrix) or len(labels) != len(matrix):
            rows = f"{len(matrix)} rows of {[len(row) for row in matrix]} cells and {len(labels)} labels"
            raise ValueError(
                f"log_confusion_matrix({name!r}): expected a square matrix with a label a row, got {rows}."
            )
        self._record("confusion_matrix", name, {"class_labels": labels, "matrix": matrix})

    def log_image(self, name: str, path: str | os.PathLike[str] | None = None, plot: Plot | None = None) -> None:
        """Keep a picture below ``outputs/images/``.

        Args:
            name: What it shows. A name that is used again gets a number.
            path: A picture file to copy; or
            plot: a matplotlib figure, saved as PNG.

        Raises:
            ValueError: Not exactly one of ``path`` and ``plot`` is given.
        """
        if (path is None) == (plot is None):
            raise ValueError(f"log_image({name!r}): give either path=... or plot=...")
        suffix = Path(path).suffix if path is not None else ".png"
        target = self._outputs / IMAGES / (self._image_stem(name) + suffix)
        with _replacing(target) as scratch:
            if path is not None:
                shutil.copyfile(path, scratch)
            elif plot is not None:
                plot.savefig(scratch, format="png")
        self._record("image", name, target.relative_to(self._outputs).as_posix())

    def upload_file(self, name: str, path: str | os.PathLike[str]) -> None:
        """Copy a file below ``outputs/``, which is collected when training ends.

        Args:
            name: Path below ``outputs/``; a leading ``outputs/`` is optional.
            path: The file.

        Raises:
            ValueError: The name would lie outside ``outputs/``.
            FileNotFoundError: There is no such file.
        """
        parts = PurePosixPath(name).parts
        relative = PurePosixPath(*(parts[1:] if parts[:1] == (OUTPUTS,) else parts))
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise ValueError(f"upload_file({name!r}): the name must be a relative path below outputs/.")
        target = self._outputs / relative
        if not (target.exists() and target.samefile(path)):
            with _replacing(target) as scratch:
                shutil.copyfile(path, scratch)

    def assert_in_sync(self, model: "Module", name: str = "model", *, buffers: bool = True) -> None:
        """Check that all ranks hold the same model; every rank must call it. One process alone always passes.

        The ranks compare hashes by way of what the script has initialized: Horovod, torch.distributed, or MPI.

        Args:
            model: Replicated on every rank; not sharded.
            name: What the message calls it.
            buffers: Compare buffers too. Running statistics of batch normalization differ unless they are
                synchronized.

        Raises:
            OutOfSyncError: Ranks differ (it names them and the first tensor that does), or nothing is initialized by
                which they could compare. An ``AssertionError``, raised on every rank.
        """
        from trainyard.tasks.runtime.sync import assert_in_sync

        assert_in_sync(model, name, buffers, self._world_size)

    def log_device(self, facts: Mapping[str, Any]) -> None:
        """Note what this rank has computed on; done for every script at its end."""
        self._record("device", str(facts["device"]), dict(facts))

    def checkpoint(self, name: str) -> AbstractContextManager[Path]:
        """Write a checkpoint that appears whole under its name, on disk, or not at all.

        ::

            with run.checkpoint("epoch-3.pt") as path:
                torch.save(state, path)

        Args:
            name: Path below ``TRAINYARD_CHECKPOINT_DIR`` (by hand, below ``outputs/checkpoints``). One that is there
                is replaced. Ranks that write at once need names of their own.

        Raises:
            ValueError: The name would lie outside the directory.
            FileNotFoundError: The block wrote nothing.
        """
        return writing_checkpoint(checkpoint_directory(os.environ), name)

    def tag(self, key: str, value: str | None = None) -> None:
        """Attach a word, or a key and a value, to the run."""
        self._record("tag", key, None if value is None else str(value))

    def _record(self, kind: str, name: str, value: Any, **facts: Any) -> None:
        self._write({"kind": kind, "name": str(name), "value": value, **facts, "time": time.time()})

    def _image_stem(self, name: str) -> str:
        """A file name of our own: unlike for other names, for other ranks, and for the same name before."""
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".") or "image"
        self._num_images[stem] = self._num_images.get(stem, 0) + 1
        number = f"-{self._num_images[stem]}" if self._num_images[stem] > 1 else ""
        return stem + number + (f"-rank-{self.rank}" if self.rank else "")


def _record_appender(directory: Path, rank: Rank) -> RecordWriter:
    """Appends records to the rank's file; one ``write`` each, so a kill leaves at most half a last line."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(records_file(directory, rank.rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(record: dict[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        while line:  # a second round only where the disk took a part
            line = line[os.write(descriptor, line) :]

    append(_rank_record(rank))
    return append


def _record_printer(rank: Rank) -> RecordWriter:
    """Prints records as readable lines, for scripts that run by hand."""
    head = f"[rank {rank.rank}] " if rank.world_size > 1 else ""

    def print_line(record: dict[str, Any]) -> None:
        kind = "" if record["kind"] == "scalar" else f"{record['kind']} "
        step = "" if record.get("step") is None else f" (step {record['step']})"
        print(f"{head}{kind}{record['name']} = {_readable(record['value'])}{step}", flush=True)

    return print_line


def _readable(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rank_record(rank: Rank) -> dict[str, Any]:
    return {
        "kind": "rank",
        "rank": rank.rank,
        "local_rank": rank.local_rank,
        "world_size": rank.world_size,
        "host": rank.host,
        "pid": os.getpid(),
        "time": time.time(),
    }


def _number(name: str, value: Any) -> int | float | str:
    """A number as JSON takes it; NaN and infinities as strings."""
    if hasattr(value, "item"):  # numpy scalars and arrays, tensors
        value = value.item()
    if isinstance(value, int):
        return _integer(value)
    if hasattr(value, "__float__"):
        return _finite_or_name(_as_float(value))
    raise TypeError(f"log({name!r}): expected a number, got {value!r}; words go to tag().")


def _plain(value: Any) -> Any:
    """A value as JSON takes it: arrays and tensors become lists, NaN and infinities strings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return _finite_or_name(_as_float(value)) if hasattr(value, "__float__") else str(value)


def _columns(name: str, value: Any) -> dict[str, list[Any]]:
    expected = f"log_table({name!r}): expected a dictionary of columns, each a list of cells"
    if not isinstance(value, Mapping):
        raise TypeError(f"{expected}, got {type(value).__name__}.")
    columns: dict[str, list[Any]] = {}
    for column, cells in value.items():
        plain = _plain(cells)
        if not isinstance(plain, list):
            raise TypeError(f"{expected}, got {cells!r} for {column!r}; one row of single values goes to log_row().")
        columns[str(column)] = plain
    return columns


def _integer(value: int) -> int | str:
    """An integer, or the name of an infinity where no float holds it: whoever reads it computes with floats."""
    if math.isfinite(_as_float(value)):
        return int(value)
    return "Infinity" if value > 0 else "-Infinity"


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _finite_or_name(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A scratch file beside a target that takes its place when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
