"""What a script written for the first-generation cloud SDK finds: ``from azureml.core import Run``.

Where nothing else provides ``azureml.core``, a finder at the very end of ``sys.meta_path`` does, with a ``Run`` that
takes the SDK's arguments and records through ``trainyard.Run``. An installed ``azureml-core`` is found before, and is
never touched. Other packages of that namespace (``azureml-telemetry``) may be installed without it: they keep
``azureml``, and only ``azureml.core`` is added to it. Forked processes inherit the finder; spawned ones the path to
``spawned/azureml``, which installs it there.

The signatures are those of azureml-core 1.61. A call that has no meaning here (a workspace, a child run) is refused by
name; a datastore to upload to is warned of; descriptions and time limits, which decide nothing, are dropped.
"""

import importlib.abc
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from trainyard.tasks.runtime import run as trainyard_run

ROOT = "azureml"
CORE = "azureml.core"
CORE_RUN = "azureml.core.run"
VERSION = "1.61.0+trainyard"
FOR_SPAWNED = str(Path(__file__).resolve().parent / "spawned")

FilePath = str | os.PathLike[str]

_INSTEAD = {
    "experiment": "a run has no experiment and no workspace here; data comes as a path, in an argument or a variable",
    "register_model": "save the model to outputs/model.pt2; the pipeline exports, validates and registers it",
    "fail": "raise an exception, or exit with a code other than 0",
    "child_run": "log to this run, with a slash in the metric's name",
}


class Run:
    """The SDK's ``Run``, as far as a training script uses it; get it from ``Run.get_context()``.

    Args:
        run: Takes what is logged.
    """

    def __init__(self, run: trainyard_run.Run) -> None:
        self._run = run

    @classmethod
    def get_context(cls, allow_offline: bool = True, **options: Any) -> "Run":
        """The run of this process. There always is one: neither ``allow_offline`` nor the options decide anything."""
        return cls(trainyard_run.Run.get_context())

    @classmethod
    def get_submitted_run(cls, **options: Any) -> "Run":
        """The older name of ``get_context``."""
        return cls.get_context()

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def parent(self) -> None:
        """None: a run is nobody's child here."""

    @property
    def input_datasets(self) -> dict[str, str]:
        """Local paths by the names in the estimator's ``inputs``, which are variables (so all others are here too)."""
        return _InputDatasets(os.environ)

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Log one value of a metric; a word, which the SDK takes too, becomes a tag.

        Raises:
            TypeError: The value is neither a number nor a word.
        """
        if isinstance(value, str):
            self._run.tag(name, value)
        else:
            self._run.log(name, value, step=step)

    def log_list(self, name: str, value: Iterable[Any], description: str = "") -> None:
        """Log a list of values."""
        self._run.log_list(name, value)

    def log_row(self, name: str, description: str | None = None, **kwargs: Any) -> None:
        """Add one row to a table: a cell for each further keyword."""
        self._run.log_row(name, **kwargs)

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """Log a table by its columns; a bare cell counts as a column of one.

        Raises:
            ValueError: The columns differ in length.
        """
        self._run.log_table(name, {column: _cells(cells) for column, cells in value.items()})

    def log_confusion_matrix(self, name: str, value: Mapping[str, Any] | str, description: str = "") -> None:
        """Log a confusion matrix.

        Args:
            name: What it is of.
            value: ``{"data": {"class_labels": [...], "matrix": [[...]]}}``, or that as JSON.
            description: Not kept.

        Raises:
            ValueError: The matrix is not square, or the labels do not fit it.
        """
        self._run.log_confusion_matrix(name, json.loads(value) if isinstance(value, str) else value)

    def log_image(
        self, name: str, path: FilePath | None = None, plot: trainyard_run.Plot | None = None, description: str = ""
    ) -> None:
        """Keep a picture: a file, or a matplotlib figure.

        Raises:
            ValueError: Not exactly one of ``path`` and ``plot`` is given.
        """
        self._run.log_image(name, path, plot)

    def upload_file(self, name: str, path_or_stream: FilePath | IO[Any], datastore_name: str | None = None) -> None:
        """Keep a file, or what a stream holds, below ``outputs/``.

        Raises:
            ValueError: The name would lie outside ``outputs/``.
            FileNotFoundError: There is no such file.
        """
        _warn_of_datastore(datastore_name)
        if isinstance(path_or_stream, (str, os.PathLike)):
            self._run.upload_file(name, path_or_stream)
        else:
            self._upload_stream(name, path_or_stream)

    def upload_files(
        self,
        names: Sequence[str],
        paths: Sequence[FilePath],
        *,
        timeout_seconds: float | None = None,
        datastore_name: str | None = None,
    ) -> None:
        """Keep several files, as ``upload_file`` does.

        Raises:
            ValueError: There are more names than paths, or fewer.
        """
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path, datastore_name)

    def upload_folder(self, name: str, path: FilePath, datastore_name: str | None = None) -> None:
        """Keep all files of a folder below ``outputs/<name>/``.

        Raises:
            NotADirectoryError: There is no such folder.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise NotADirectoryError(f"upload_folder({name!r}): {str(path)!r} is not a folder.")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        for file in files:
            self.upload_file(f"{name}/{file.relative_to(folder).as_posix()}", file, datastore_name)

    def tag(self, key: str, value: str | None = None) -> None:
        """Attach a word, or a key and a value, to the run."""
        self._run.tag(key, value)

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Attach several tags."""
        for key, value in tags.items():
            self._run.tag(key, value)

    def add_properties(self, properties: Mapping[str, str | None]) -> None:
        """Attach properties: tags, here."""
        self.set_tags(properties)

    def complete(self) -> None:
        """Does nothing, as for every submitted run: the run ends when the script does."""

    def flush(self, timeout_seconds: float = 300) -> None:
        """Does nothing: every record is written when it is logged."""

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, provided by Trainyard)"

    def __getattr__(self, name: str) -> Any:
        supported = ", ".join(sorted(each for each in dir(type(self)) if not each.startswith("_")))
        instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(
            f"azureml's Run.{name} is not supported by Trainyard{instead}. Supported are: {supported}.",
            name=name,
            obj=self,
        )

    def _upload_stream(self, name: str, stream: IO[Any]) -> None:
        """By way of a file, so that a stream that breaks leaves nothing below ``outputs/``."""
        mode = "w" if isinstance(stream, io.TextIOBase) else "wb"
        with tempfile.NamedTemporaryFile(mode) as scratch:
            shutil.copyfileobj(stream, scratch)
            scratch.flush()
            self._run.upload_file(name, scratch.name)


class _OfflineRun(Run):
    """What scripts compare their run with, to learn whether they were started by hand; no run here is one."""


class _InputDatasets(dict[str, str]):
    def __missing__(self, name: str) -> str:
        raise KeyError(f"{name}: no such input; the estimator's inputs give each its name and its data")


_CONTENTS: dict[str, dict[str, Any]] = {
    ROOT: {},
    CORE: {"Run": Run, "VERSION": VERSION, "__version__": VERSION, "__all__": ["VERSION", "Run"]},
    CORE_RUN: {"Run": Run, "_OfflineRun": _OfflineRun, "__all__": ["Run"]},
}


class AzuremlFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides ``azureml.core`` where no finder before this one did."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for ``azureml`` and ``azureml.core``, and for what is below an ``azureml.core`` of ours.

        Raises:
            ModuleNotFoundError: Something is imported from our ``azureml.core`` that it does not have.
        """
        parent, _, name = fullname.rpartition(".")
        ours = self._provides(parent)
        if fullname in (ROOT, CORE) or (ours and fullname in _CONTENTS):
            return ModuleSpec(fullname, self, origin=__file__, is_package=True)
        if ours and parent != ROOT:
            # Not ``name=fullname``: ``from azureml.core import Dataset`` would hide the message behind its own.
            raise ModuleNotFoundError(_missing(parent, name), name=CORE)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        name = module.__name__

        def refuse(attribute: str) -> Any:
            raise AttributeError(_missing(name, attribute), name=attribute, obj=module)

        vars(module).update(_CONTENTS[name], __doc__="Provided by Trainyard.", __getattr__=refuse)

    def _provides(self, name: str) -> bool:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        return spec is not None and spec.loader is self


def install() -> None:
    """Let scripts that this process runs find ``azureml.core``; the last of all finders, so that a real one wins.

    Where nothing of that namespace is installed, spawned processes find it too, by way of the inherited path.
    """
    if any(isinstance(finder, AzuremlFinder) for finder in sys.meta_path):
        return
    if find_spec(ROOT) is None:
        sys.path.append(FOR_SPAWNED)
    sys.meta_path.append(AzuremlFinder())


def _missing(module: str, name: str) -> str:
    provided = ", ".join(sorted(key for key in _CONTENTS[module] if not key.startswith("_"))) or "core"
    return (
        f"azureml-core is not installed, and Trainyard's stand-in for {module} has no {name!r}: "
        f"it has {provided}. An azureml-core that is installed is used instead."
    )


def _cells(column: Any) -> Any:
    return column if isinstance(column, Iterable) and not isinstance(column, str) else [column]


def _warn_of_datastore(name: str | None) -> None:
    if name is not None:
        warnings.warn(f"datastore_name={name!r} is ignored: files are kept in this run's outputs.", stacklevel=3)
