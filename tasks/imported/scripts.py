"""The modules that Python files import, read from their ``import`` statements."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.syntax import parse_source


@dataclass(frozen=True, slots=True)
class Script:
    """A Python file of a project.

    Args:
        path: Where it is in the project.
        modules: The top-level modules that it imports anywhere; none where it cannot be parsed.
    """

    path: PurePosixPath
    modules: frozenset[str]


def scripts_in(directory: Path, files: Iterable[Path]) -> list[Script]:
    """The Python files among some files below a directory."""
    return [
        Script(PurePosixPath(path.relative_to(directory).as_posix()), _of_file(path, path.stat().st_mtime_ns))
        for path in files
        if path.suffix == ".py"
    ]


def scripts_of(store: ArtifactStore, source: ArtifactRef) -> list[Script]:
    """The Python files of a project's snapshot.

    Raises:
        ArtifactDamagedError: It is not whole.
    """
    return [
        Script(PurePosixPath(path), _of_object(store.url, ref))
        for path, ref in store.find_entries(source).items()
        if path.endswith(".py")
    ]


@lru_cache(maxsize=4096)
def _of_file(path: Path, mtime_ns: int) -> frozenset[str]:
    return top_level_imports(path.read_bytes())


@lru_cache(maxsize=4096)
def _of_object(store_url: str, ref: ArtifactRef) -> frozenset[str]:
    return top_level_imports(ArtifactStore(store_url).read_bytes(ref))


def top_level_imports(source: bytes) -> frozenset[str]:
    """The top-level modules that some source imports; none where it cannot be parsed."""
    try:
        tree = parse_source(source)
    except (SyntaxError, ValueError):
        return frozenset()
    return frozenset(_module_names(tree))


def _module_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
