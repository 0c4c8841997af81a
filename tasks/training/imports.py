"""What a training project imports: the installed distributions whose versions decide what it computes."""

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from packaging.utils import canonicalize_name

from trainyard.tasks.syntax import parse_source
from trainyard.tasks.training.distributions import installed_distributions, module_providers

OURSELVES = "trainyard"


def imported_distributions(scripts: Iterable[Path]) -> dict[str, str]:
    """Name and version of every installed distribution that some Python files import, directly or through others.

    Read from ``import`` statements and from the distributions' own requirements, without importing anything.
    Imports that are only made at run time by name (``importlib.import_module``) are not seen.

    Args:
        scripts: Python files; one that cannot be parsed counts as importing nothing.
    """
    installed, providers = installed_distributions(), module_providers()
    pending = [name for module in _top_level_imports(scripts) for name in providers.get(module, ())]
    versions: dict[str, str] = {}
    while pending:
        name = pending.pop()
        if name in versions or name == OURSELVES or name not in installed:
            continue
        versions[name] = installed[name].version
        pending += [canonicalize_name(requirement.name) for requirement in installed[name].requirements]
    return dict(sorted(versions.items()))


def _top_level_imports(scripts: Iterable[Path]) -> set[str]:
    return {module for script in scripts for module in _imports_of(script, script.stat().st_mtime_ns)}


@lru_cache(maxsize=4096)
def _imports_of(script: Path, mtime_ns: int) -> frozenset[str]:
    try:
        tree = parse_source(script.read_bytes())
    except (SyntaxError, ValueError):
        return frozenset()
    return frozenset(_module_names(tree))


def _module_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
