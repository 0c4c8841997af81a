"""Cache keys. A key is the digest of named components, so that a miss can say which of them changed."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_file, digest_value
from trainyard.tasks.syntax import parse_source

PACKAGE_ROOT = Path(__file__).resolve().parents[1]  # the folder of trainyard.tasks
_PREFIX = "trainyard.tasks."

# Modules that decide how a stage runs (retried, cached, shown), never what it makes.
_NOT_DECISIVE = {
    "trainyard.tasks.caching",
    "trainyard.tasks.retries",
    "trainyard.tasks.settings",
    "trainyard.tasks.errors",
    "trainyard.tasks.publishing",
}


@dataclass(frozen=True, slots=True)
class StageKey:
    """What decides a stage's result.

    Args:
        stage: The stage's name.
        components: A digest or short value for each thing that decides the result, by name, for example
            ``{"code:tasks/export/onnx.py": "…", "library:torch": "2.13.0", "config:opset": "20"}``.
    """

    stage: str
    components: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The key."""
        return digest_value({"stage": self.stage, "components": dict(self.components)})


def code_components(packages: Iterable[str]) -> dict[str, str]:
    """Digest of every module of some packages and of the shared modules that they import.

    Follows ``import`` statements through ``trainyard.tasks``; ``task.py`` modules (retries, caching, logging) and
    the caching package do not count.

    Args:
        packages: Dotted names below ``trainyard.tasks``, for example ``trainyard.tasks.export``.

    Returns:
        One component a file, ``code:<path below tasks>``.
    """
    return {f"code:{path.relative_to(PACKAGE_ROOT).as_posix()}": digest_file(path)[0] for path in code_files(packages)}


def code_files(packages: Iterable[str]) -> list[Path]:
    """The files that ``code_components`` digests, sorted."""
    pending = [path for package in packages for path in _files_of(package)]
    seen: set[Path] = set()
    while pending:
        path = pending.pop()
        if path in seen or path.name == "task.py":
            continue
        seen.add(path)
        for name in _imports(path, path.stat().st_mtime_ns):
            if not any(name == skipped or name.startswith(f"{skipped}.") for skipped in _NOT_DECISIVE):
                pending.extend(_module_file(name))
    return sorted(seen)


def library_components(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution, ``library:<name>``; ``missing`` where it is not installed."""
    return {f"library:{name}": found for name, found in installed_versions(distributions).items()}


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution; ``missing`` where it is not installed."""
    return {name: _installed_version(name) for name in distributions}


def _installed_version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"


def _files_of(package: str) -> list[Path]:
    folder = PACKAGE_ROOT / package.removeprefix(_PREFIX).replace(".", "/")
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _module_file(name: str) -> Iterator[Path]:
    """The file of a dotted name below ``trainyard.tasks``: a module, or a package's ``__init__``."""
    relative = PACKAGE_ROOT / name.removeprefix(_PREFIX).replace(".", "/")
    for candidate in (relative.with_suffix(".py"), relative / "__init__.py"):
        if candidate.is_file():
            yield candidate


@lru_cache(maxsize=512)
def _imports(path: Path, mtime_ns: int) -> frozenset[str]:
    """Dotted names below ``trainyard.tasks`` that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(parse_source(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if name.startswith(_PREFIX))
