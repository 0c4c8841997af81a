"""Components of a key for what a training project imports."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from trainyard.tasks.imported.distributions import Installed, installed_distributions, module_providers
from trainyard.tasks.imported.elsewhere import Code, code_of_project, find_code, search_folders
from trainyard.tasks.imported.scripts import Script, top_level_imports

OURSELVES = "trainyard"


def import_components(
    scripts: Iterable[Script], python_path: str | None = None, inside: Path | None = None
) -> dict[str, str]:
    """What some scripts import, directly or through others, from outside their project.

    Every installed distribution counts with its version, ``library:<name>``. Code that no version tells apart (modules
    on ``PYTHONPATH``, ``code:<module>``; distributions that are installed to be edited, ``code:edited[<name>]``) counts
    with its bytes.

    Read from ``import`` statements and from the distributions' own requirements, without importing anything.
    Imports that are only made at run time by name (``importlib.import_module``) are not seen.

    Args:
        scripts: The Python files of the project.
        python_path: The ``PYTHONPATH`` with which they run; by default this process's.
        inside: The project's directory: what lies in it is no code from outside.
    """
    search = _Search(os.environ.get("PYTHONPATH") if python_path is None else python_path, inside)
    search.follow(_imported_from_outside(list(scripts)))
    return dict(sorted(search.found.items()))


def _imported_from_outside(scripts: list[Script]) -> set[str]:
    """Modules that no folder above (or around) the script that imports them holds."""
    held = _modules_by_folder(scripts)
    return {
        module
        for script in scripts
        for module in script.modules
        if not any(module in held.get(folder, ()) for folder in script.path.parents)
    }


def _modules_by_folder(scripts: Iterable[Script]) -> Mapping[PurePosixPath, set[str]]:
    held: dict[PurePosixPath, set[str]] = {}
    for script in scripts:
        held.setdefault(script.path.parent, set()).add(script.path.stem)
        for folder in script.path.parents[:-1]:
            held.setdefault(folder.parent, set()).add(folder.name)
    return held


class _Search:
    """Goes from modules to what provides them, and on to what that imports or requires."""

    def __init__(self, python_path: str | None, inside: Path | None) -> None:
        self.found: dict[str, str] = {}
        self._folders = [folder.resolve() for folder in search_folders(python_path)]
        self._inside = inside.resolve() if inside else None
        self._installed, self._providers = installed_distributions(), module_providers()
        self._seen: set[str] = {OURSELVES, *sys.stdlib_module_names}

    def follow(self, modules: Iterable[str]) -> None:
        """Add what provides some top-level modules."""
        pending = set(modules)
        while pending:
            module = pending.pop()
            if module in self._seen:
                continue
            self._seen.add(module)
            code = find_code(module, self._folders)
            if code is not None and not self._is_inside(code):
                pending |= self._add(module, code)
            for name in self._providers.get(module, ()):
                pending |= self._add_distribution(name)

    def _add_distribution(self, name: str) -> set[str]:
        """Add a distribution and those that it requires; gives the modules that those to be edited import."""
        pending, modules = [name], set()
        while pending:
            name = pending.pop()
            if f"library:{name}" in self.found or name == OURSELVES or name not in self._installed:
                continue
            installed = self._installed[name]
            self.found[f"library:{name}"] = installed.version
            pending += [canonicalize_name(requirement.name) for requirement in installed.requirements]
            modules |= self._add_edited(name, installed)
        return modules

    def _add_edited(self, name: str, installed: Installed) -> set[str]:
        directory = installed.edited_in
        code = code_of_project(directory, installed.modules) if directory else None
        return self._add(f"edited[{name}]", code) if code else set()

    def _add(self, name: str, code: Code) -> set[str]:
        self.found[f"code:{name}"] = code.sha256
        scripts = (path for path in code.files if path.suffix == ".py")
        return {module for path in scripts for module in top_level_imports(path.read_bytes())}

    def _is_inside(self, code: Code) -> bool:
        return self._inside is not None and all(path.is_relative_to(self._inside) for path in code.files)
