"""TensorBoard's event files: the scalars in them, by the reader of the package tensorboard (an optional extra)."""

import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainyard.tasks.metrics.names import distinct_names
from trainyard.tasks.metrics.reading import Record

MISSING = (
    "The script wrote TensorBoard event files, which are not read, since tensorboard is not installed: "
    "pip install 'trainyard[tensorboard]' and run again; only the metrics are collected anew."
)
_HEADER_BYTES, _LENGTH_BYTES, _FOOTER_BYTES = 12, 8, 4


def read_event_files(folder: Path) -> tuple[list[Record], list[str]]:
    """Every scalar of the event files below a folder, as records, and notes on files that are not whole.

    A tag that several folders use (``add_scalars`` makes one a line) is prefixed with its folder.

    Args:
        folder: Where the event files are, as the script left them.
    """
    if find_spec("tensorboard") is None:
        return [], [MISSING]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    root = Path(os.path.commonpath([path.parent for path in files])) if files else folder
    scalars: list[tuple[str, str, Record]] = []
    notes = []
    for path in files:
        place = path.parent.relative_to(root).as_posix().removeprefix(".")
        try:
            scalars += [(place, tag, record) for tag, record in _scalars(path)]
        except Exception as error:  # whatever a damaged file makes a foreign reader raise: training went well
            notes.append(_note(path, folder, f"cannot be read ({type(error).__name__}: {error})"))
            continue
        if not _is_whole(path):
            notes.append(_note(path, folder, "is cut or damaged; what is before that was read"))
    names = distinct_names((place, tag) for place, tag, _ in scalars)
    return [{**record, "name": names[place, tag]} for place, tag, record in scalars], notes


def _note(path: Path, folder: Path, what: str) -> str:
    return f"The TensorBoard event file {path.relative_to(folder).as_posix()} {what}."


def _scalars(path: Path) -> Iterator[tuple[str, Record]]:
    """Tag and record of every scalar of a file, in its order."""
    loader = import_module("tensorboard.backend.event_processing.event_file_loader")
    to_array = import_module("tensorboard.util.tensor_util").make_ndarray
    kinds: dict[str, str] = {}  # only the first value of a tag need say what it is
    for event in loader.EventFileLoader(str(path)).Load():
        for value in _values(event):
            kind = kinds.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
            if kind == "scalars":
                number = float(to_array(value.tensor).item())
                yield value.tag, {"kind": "scalar", "value": number, "step": int(event.step), "time": event.wall_time}


def _values(event: Any) -> Iterable[Any]:
    return event.summary.value if event.HasField("summary") else ()


def _is_whole(path: Path) -> bool:
    """Whether every record of a file can be read: the reader stops at what is damaged, and says nothing.

    Counts records by their lengths (the TFRecord format: length, its CRC, data, its CRC).
    """
    size, position, num_records = path.stat().st_size, 0, 0
    with path.open("rb") as stream:
        while position < size:
            stream.seek(position)
            header = stream.read(_HEADER_BYTES)
            position += _HEADER_BYTES + int.from_bytes(header[:_LENGTH_BYTES], "little") + _FOOTER_BYTES
            num_records += 1
    loader = import_module("tensorboard.backend.event_processing.event_file_loader")
    return position == size and num_records == sum(1 for _ in loader.RawEventFileLoader(str(path)).Load())
