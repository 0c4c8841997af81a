"""What a run sees of its staged data: a directory of its own, where a script may add files and remove them.

Staged files are shared by every run on the machine, and believed because nobody changes them. Scripts do not know
that: they unpack archives beside their data, write caches and indexes there, and rename what they find. So each run
gets directories of its own, with a link to each staged file (``mount``) or a copy of it (``download``); docs/adr/0007
says why.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.datasets import dataset_path
from trainyard.tasks.artifacts.products import StagedData, StagedDataset
from trainyard.tasks.errors import DataChangedError, InvalidInputError
from trainyard.tasks.specs.datastore import DataReference
from trainyard.tasks.training.run_directory import RunDirectory

ALIASES = "d"
"""Directory of a run's area with a link to each dataset; the short name keeps links short."""

FileState = tuple[int, int]
"""Size, and time of the last change in nanoseconds."""


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
    shared: dict[str, FileState | None]

    def find_changes(self) -> DataChangedError | None:
        """The error of staged files that were changed while the run read them; None where none was.

        By a script that writes through its links (to root, and to the owner of a hard link, they are not read-only), by
        another run's, or by whoever wrote to an original that was staged as a hard link.
        """
        changed = tuple(path for path, state in self.shared.items() if _state(path) != state)
        if not changed:
            return None
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return DataChangedError(
            f"Staged data was changed while the training read it: {changed[0]}{more}. What was trained is of no "
            "version of the data, so it is not taken for a result. Run it again: the data is staged anew, and training "
            "begins anew. A script that writes to its data needs a copy of its own: as_download(). Where data is "
            "staged with link_mode='hardlink', nobody may write to the originals meanwhile.",
            paths=changed,
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
    roots: list[Path] = [run.area / ALIASES]
    shared: dict[str, FileState | None] = {}
    shown: set[tuple[Path, str]] = set()
    for reference, dataset in zip(references, data.datasets, strict=True):
        place = view_place(run, reference, dataset)
        staged = dataset_path(home.absolute(), dataset)
        root = staged.parent if dataset.single_object else staged
        paths[reference] = place / staged.relative_to(root)
        if (place, dataset.sha256) in shown:  # the same bytes, under another address
            continue
        shown.add((place, dataset.sha256))
        is_new = not place.exists()
        view = _View(reference, root, place)
        made = view.copy() if reference.mode == "download" else view.link(run.area / ALIASES / str(len(shown)), shared)
        roots += [place] if is_new else made
    return DataViews(paths, tuple(roots), shared)


def view_place(run: RunDirectory, reference: DataReference, dataset: StagedDataset) -> Path:
    """The directory of a view: where the script expects it, else one that is the same for equal data."""
    if reference.path_on_compute is not None:
        return Path(os.path.normpath(run.workspace / reference.path_on_compute))
    return run.area / "data" / reference.mode / dataset.sha256[:32]


@dataclass(frozen=True, slots=True)
class _View:
    """One dataset, to be shown at one place. Works on strings: a dataset may have very many files."""

    reference: DataReference
    root: Path
    place: Path

    def link(self, alias: Path, shared: dict[str, FileState | None]) -> list[Path]:
        """Link to every staged file, by way of a short alias of their directory; gives the links.

        ext4 keeps a link of up to 59 bytes in its inode. A longer one takes a block, and some kernels wait for the
        journal when it is removed: for 5,000 links 4 to 10 s instead of 0.2 s.

        Args:
            alias: Where to put the alias.
            shared: Receives the state of every file that is linked to.
        """
        alias.parent.mkdir(parents=True, exist_ok=True)
        alias.symlink_to(self.root)
        made = []
        for relative, staged, folder, names in self._folders():
            target = os.path.normpath(os.path.join(os.path.relpath(alias, folder), relative))
            for name in names:
                shared[f"{staged}/{name}"] = _state(f"{staged}/{name}")
                try:
                    os.symlink(f"{target}/{name}", f"{folder}/{name}")
                except FileExistsError:
                    raise self._taken(name) from None
                made.append(Path(folder, name))
        return made

    def copy(self) -> list[Path]:
        """Copy every staged file; gives the copies."""
        made = []
        for _, staged, folder, names in self._folders():
            for name in names:
                if os.path.lexists(f"{folder}/{name}"):
                    raise self._taken(name)
                shutil.copyfile(f"{staged}/{name}", f"{folder}/{name}")
                made.append(Path(folder, name))
        return made

    def _folders(self) -> Iterator[tuple[str, str, str, list[str]]]:
        """Each folder of the dataset: its path in it, where it is staged and shown, and the files right in it."""
        for staged, _, names in os.walk(self.root):
            relative = os.path.relpath(staged, self.root)
            folder = os.path.normpath(os.path.join(self.place, relative))
            os.makedirs(folder, exist_ok=True)
            yield relative, staged, folder, names

    def _taken(self, name: str) -> InvalidInputError:
        return InvalidInputError(
            f"{self.reference.uri} holds {name!r}, and path_on_compute {self.reference.path_on_compute!r} has a file "
            "of that name already, from the source directory or from other data: choose another path."
        )


def _state(path: str) -> FileState | None:
    """None where there is no file any more."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
