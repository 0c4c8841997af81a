"""What a run sees of its staged data: a directory of its own, where a script may add files and remove them.

Staged files are shared by every run on the machine, and believed because nobody changes them. Scripts do not know
that: they unpack archives beside their data, write caches and indexes there, and rename what they find. So each run
gets directories of its own, with a link to each staged file (``mount``) or a copy of it (``download``); docs/adr/0007
says why.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.training.run_directory import RunDirectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataViews:
    """The views of one run.

    Args:
        paths: What the script is given for each reference: a directory, or the file of a single object.
        roots: What was made for them, and can be removed once the script has ended.
        shared: The staged files that the views link to, each with its size and time of change.
    """

    paths: dict[DataReference, Path]
    roots: tuple[Path, ...]
    shared: dict[Path, tuple[int, int]]

    def warn_of_changes(self) -> None:
        """Say which staged files were changed through a link: to root, read-only files are not."""
        changed = [path for path, state in self.shared.items() if _state(path) != state]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            log.warning(
                "The script changed staged data in place: %s%s. Other runs may have read the change; the data is "
                "staged again when it is next needed. Give such a script a copy of its own: as_download().",
                changed[0],
                more,
            )


def make_views(references: Sequence[DataReference], data: StagedData, run: RunDirectory, home: Path) -> DataViews:
    """Give a run its views of its data.

    Args:
        references: What the job names.
        data: The staged dataset of each of them, in their order.
        run: The run; its workspace holds the source already.
        home: The home directory that the data was staged below.

    Raises:
        ArtifactDamagedError: A dataset is not on this machine.
        InvalidInputError: A file would take the place of another one.
    """
    paths: dict[DataReference, Path] = {}
    roots: list[Path] = []
    shared: dict[Path, tuple[int, int]] = {}
    shown: set[tuple[Path, str]] = set()
    for reference, dataset in zip(references, data.datasets, strict=True):
        place = view_place(run, reference, dataset)
        staged = dataset_path(home.absolute(), dataset)
        root = staged.parent if dataset.single_object else staged
        paths[reference] = place / staged.relative_to(root)
        if (place, dataset.sha256) in shown:  # the same bytes, under another address
            continue
        shown.add((place, dataset.sha256))
        files = {file: place / file.relative_to(root) for file in _files(root)}
        roots += files.values() if place.exists() else (place,)
        _show(files, reference)
        if reference.mode == "mount":
            shared |= {file: _state(file) for file in files}
    return DataViews(paths, tuple(roots), shared)


def view_place(run: RunDirectory, reference: DataReference, dataset: StagedDataset) -> Path:
    """The directory of a view: where the script expects it, else one that is the same for equal data."""
    if reference.path_on_compute is not None:
        return Path(os.path.normpath(run.workspace / reference.path_on_compute))
    return run.area / "data" / reference.mode / dataset.sha256[:32]


def _files(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        yield from (Path(folder, name) for name in names)


def _show(files: dict[Path, Path], reference: DataReference) -> None:
    """Put staged files where the script looks for them."""
    for folder in {path.parent for path in files.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    for file, path in files.items():
        if os.path.lexists(path):
            raise InvalidInputError(
                f"{reference.uri} holds {path.name!r}, and path_on_compute {reference.path_on_compute!r} has a file of "
                "that name already, from the source directory or from other data: choose another path."
            )
        if reference.mode == "mount":
            path.symlink_to(file)
        else:
            shutil.copyfile(file, path)


def _state(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns
