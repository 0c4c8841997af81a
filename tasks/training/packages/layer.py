"""The environment layer: a virtual environment with a job's packages, on top of the one that Trainyard runs in."""

import json
import logging
import shutil
import site
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_value
from trainyard.tasks.caching.exclusive import exclusive
from trainyard.tasks.training.packages.installed import installed_packages
from trainyard.tasks.training.packages.lock import PackageLock, environments, lock_text
from trainyard.tasks.training.packages.pip import run_pip

log = logging.getLogger(__name__)

STAMP = ".trainyard-layer.json"
BASE = "zz-trainyard-base.pth"
"""Names the folders that a layer lies on; last by name: what the layer's own .pth files add comes before."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A whole layer.

    Args:
        path: Its directory.
    """

    path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """The folder of its Python packages."""
        (found,) = (self.path / "lib").glob("python*/site-packages")
        return found

    def environment(self, inherited: Mapping[str, str], base: Path) -> dict[str, str]:
        """The variables that processes on the layer need beside their interpreter.

        Args:
            inherited: The environment that they get otherwise.
            base: The directory of the environment below, which holds ``mpirun``.
        """
        programs = [str(self.path / "bin"), str(base / "bin"), inherited.get("PATH", "")]
        found = {"PATH": ":".join(part for part in programs if part), "VIRTUAL_ENV": str(self.path)}
        # mpi4py looks for it below its interpreter's prefix, which is the layer's
        if "MPI4PY_LIBMPI" not in inherited and any((base / "lib").glob("libmpi.so*")):
            found["MPI4PY_LIBMPI"] = str(base / "lib")
        return found


def build_layer(
    lock: PackageLock, options: list[str], home: Path, timeout_s: float | None, beside: Sequence[str] = ()
) -> Layer:
    """The layer of some packages: the one that is there where it is whole, else a new one.

    Scripts in a virtual environment hold its path, so it cannot be made elsewhere and moved. It is made in place;
    the stamp that makes it count is written last, and names every file. Of several that need it at once, one builds.

    Args:
        lock: The packages.
        options: Where packages come from, as lines of a requirements file.
        home: This machine's directory.
        timeout_s: Seconds that the installation may take.
        beside: Further folders of Python packages, after all others.

    Raises:
        InvalidInputError: pip cannot install the packages.
        TransientError: The index cannot be reached, or pip was killed.
    """
    layer = Layer(environments(home) / layer_name(lock, beside))
    with exclusive(layer.path.with_suffix(".lock"), "the same environment layer is built", timeout_s) as held:
        if is_whole(layer.path):
            return layer
        if layer.path.exists():
            log.warning("The environment layer %s is incomplete or damaged; it is built anew.", layer.path)
            shutil.rmtree(layer.path)
        names = ", ".join(f"{package.name} {package.version}" for package in lock.packages)
        log.info("Building the environment layer %s: %s", layer.path.name, names)
        _make(layer.path, [*base_folders(), *beside])
        if lock.packages:
            _install(layer, lock_text(lock, options), held, timeout_s)
        _stamp(layer.path)
    return layer


def layer_name(lock: PackageLock, beside: Sequence[str] = ()) -> str:
    """The name of a layer's directory: what is in it, and what it lies on."""
    folders = [*base_folders(), *beside]
    below = {"prefix": sys.prefix, "executable": sys.executable, "version": sys.version, "folders": folders}
    packages = [package.requirement for package in lock.packages]
    return digest_value({"packages": packages, "below": below, "installed": installed_packages()})[:32]


def base_folders() -> list[str]:
    """The folders of installed packages that a layer lies on."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [folder for folder in folders if Path(folder).is_dir()]


def is_whole(path: Path) -> bool:
    """Whether a layer was built to its end, and every file that it had then is as it was (by size and time)."""
    try:
        stamp = json.loads((path / STAMP).read_bytes())
        return (path / "bin" / "python").exists() and all(
            _facts(path / name) == facts for name, facts in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _make(path: Path, below: list[str]) -> None:
    """Make a virtual environment whose own packages the folders below follow, their ``.pth`` files included."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(path)
    added = "; ".join(f"site.addsitedir({folder!r})" for folder in below)
    (Layer(path).site_packages / BASE).write_text(f"import site; {added}\n")


def _install(layer: Layer, requirements: str, held: int, timeout_s: float | None) -> None:
    file, log_path = layer.path / "requirements.txt", layer.path.with_suffix(".log")
    file.write_text(requirements)
    arguments = ("install", "--no-deps", "--no-warn-script-location", "--requirement", str(file))
    run_pip(layer.python, arguments, "The environment layer", log_path, held, timeout_s)


def _stamp(layer: Path) -> None:
    """Note that a layer is whole, and what it consists of; bytecode comes and goes."""
    files = [path for path in layer.rglob("*") if path.is_file() and not path.is_symlink()]
    lasting = [path for path in files if "__pycache__" not in path.parts]
    stamp = {"files": {path.relative_to(layer).as_posix(): _facts(path) for path in lasting}}
    scratch = layer / f"{STAMP}.tmp"
    scratch.write_text(json.dumps(stamp))
    scratch.replace(layer / STAMP)


def _facts(path: Path) -> list[int]:
    found = path.lstat()
    return [found.st_size, found.st_mtime_ns]
