"""Code of one's own outside a project: on ``PYTHONPATH``, or installed to be edited where it lies.

No version tells that it changed, so its bytes count.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_file, digest_value

_ENDINGS = (".py", ".so")


@dataclass(frozen=True, slots=True)
class Code:
    """The files of a module, or of a package.

    Args:
        root: The folder that their names are told from.
        files: The files, sorted.
    """

    root: Path
    files: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Digest of the names and bytes of all of them; where they lie is no part of it."""
        return digest_value({path.relative_to(self.root).as_posix(): digest_file(path)[0] for path in self.files})


def search_folders(python_path: str | None) -> list[Path]:
    """The folders in which a training finds modules, beside the standard library's and those of what is installed.

    Those are what ``PYTHONPATH`` names, and what ``.pth`` files added, which come after the installed packages. What
    comes before them is this process's own: the folder of its script, or the working directory.

    Args:
        python_path: The training's ``PYTHONPATH``.
    """
    named = [folder for folder in (python_path or "").split(os.pathsep) if os.path.isabs(folder)]
    installed = _folders_of_python()
    first = next((n for n, folder in enumerate(sys.path) if folder in installed), len(sys.path))
    folders = dict.fromkeys([*named, *sys.path[first:]])
    return [Path(folder) for folder in folders if folder not in installed and os.path.isdir(folder)]


def find_code(module: str, folders: Iterable[Path]) -> Code | None:
    """The code of a top-level module in the first of some folders that has it."""
    for folder in folders:
        package, singles = folder / module, [folder / f"{module}.py", *sorted(folder.glob(f"{module}.*.so"))]
        if (package / "__init__.py").is_file():
            return Code(folder, tuple(_files_below(package)))
        if files := tuple(path for path in singles if path.is_file()):
            return Code(folder, files)
        if package.is_dir() and (files := tuple(_files_below(package))):  # a namespace
            return Code(folder, files)
    return None


def code_of_project(directory: Path, modules: Iterable[str]) -> Code | None:
    """The code of a project that is installed to be edited: its modules where they can be told, else all of it."""
    if not directory.is_dir():
        return None
    found = [code for module in modules if (code := find_code(module, (directory, directory / "src")))]
    files = {path for code in found for path in code.files} or set(_files_below(directory))
    return Code(directory, tuple(sorted(files)))


def _files_below(folder: Path) -> Iterator[Path]:
    """Modules below a folder, sorted; hidden folders and environments that lie in it are none of it."""
    for here, folders, names in os.walk(folder):
        inside = Path(here)
        folders[:] = sorted(
            name for name in folders if not name.startswith((".", "__pycache__")) and not _is_environment(inside / name)
        )
        yield from (inside / name for name in sorted(names) if name.endswith(_ENDINGS) and (inside / name).is_file())


def _is_environment(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").exists()


def _folders_of_python() -> set[str]:
    """Where the standard library and installed packages are."""
    paths = sysconfig.get_paths()
    own = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own |= {*site.getsitepackages(), site.getusersitepackages(), os.path.join(paths["platstdlib"], "lib-dynload")}
    # A virtual environment has the standard library of the Python that it was made with.
    return own | {folder for folder in sys.path if folder.startswith(sys.base_prefix) and folder.endswith(".zip")}
