"""The torch that a script needs, against the one that is installed; torch itself is not imported."""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version


def framework_problems(framework_version: str | None) -> list[str]:
    """What is wrong with an estimator's ``framework_version`` on this machine, one sentence each.

    Args:
        framework_version: The leading parts of a version (``2.13`` stands for every ``2.13.x``), or a specifier as
            PEP 440 writes it (``>=2.6,<3``).
    """
    if framework_version is None:
        return []
    try:
        wanted = _specifier(framework_version)
    except InvalidSpecifier:
        return [f"framework_version {framework_version!r} is no version; write it like '2.13', '2.13.0' or '>=2.6,<3'"]
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return [f"framework_version is {framework_version!r}, but torch is not installed"]
    if wanted.contains(installed, prereleases=True):
        return []
    return [
        f"framework_version is {framework_version!r}, but torch {installed} is installed: it is asserted, never "
        "installed; run in an environment with that torch (Horovod is built for one), or change framework_version"
    ]


def _specifier(text: str) -> SpecifierSet:
    """What a version or a specifier accepts. A local part (``+cpu``) counts only where it is asked for."""
    try:
        wanted = Version(text)
    except InvalidVersion:
        if not text.strip():
            raise InvalidSpecifier(text) from None
        return SpecifierSet(text)
    return SpecifierSet(f"=={wanted}" if wanted.local or wanted.is_prerelease else f"=={wanted}.*")
