"""The installed distributions, whose metadata is read once a process."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions, packages_distributions

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_NO_EXTRA = {"extra": ""}


@dataclass(frozen=True, slots=True)
class Installed:
    """A distribution as its metadata describes it.

    Args:
        name: Its name, as it writes it.
        version: Its version.
        requires: What it requires of others, extras included.
    """

    name: str
    version: str
    requires: tuple[str, ...]

    @property
    def requirements(self) -> list[Requirement]:
        """What it requires here and without extras; what cannot be read is left out."""
        found = []
        for text in self.requires:
            with suppress(InvalidRequirement):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate(_NO_EXTRA):
                    found.append(requirement)
        return found


def installed_distributions() -> Mapping[str, Installed]:
    """Every installed distribution by its normalised name (PEP 503); of two, the one that is imported."""
    return _read(_import_folders())


def module_providers() -> Mapping[str, list[str]]:
    """Names of the distributions that provide each top-level module."""
    return _read_providers(_import_folders())


def _import_folders() -> tuple[tuple[str, int], ...]:
    """Where modules are imported from, with the times that change when something is installed there or removed."""
    folders = []
    for folder in sys.path:
        with suppress(OSError):  # there need not be one
            folders.append((folder, os.stat(folder or ".").st_mtime_ns))
    return tuple(folders)


@lru_cache(maxsize=1)
def _read(folders: tuple[tuple[str, int], ...]) -> Mapping[str, Installed]:
    found: dict[str, Installed] = {}
    for distribution in distributions():
        metadata = distribution.metadata  # each look at it reads the file
        name, version = metadata["Name"], metadata["Version"]
        if name and version:  # else an uninstallation has left a part of it
            requires = tuple(metadata.get_all("Requires-Dist") or ())
            found.setdefault(canonicalize_name(name), Installed(name, version, requires))
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)
def _read_providers(folders: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    return {module: [name for name in names if name] for module, names in packages_distributions().items()}
