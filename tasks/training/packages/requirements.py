"""What a job asks of pip, from ``pip_packages``, requirements files and conda files, as one flat list."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

FILE_OPTIONS = {
    **{"-i": "--index-url", "-f": "--find-links", "--pypi-url": "--index-url"},
    **{name: name for name in ("--index-url", "--extra-index-url", "--find-links", "--trusted-host")},
    **{name: name for name in ("--no-index", "--pre", "--prefer-binary", "--only-binary", "--no-binary")},
}
"""Options of a requirements file that say where packages come from; pip gets them as they are."""

INCLUDES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}

_COMMENT = re.compile(r"(^|\s)#.*$")
_CONTINUED = re.compile(r"\\\r?\n")
_LINE_OPTION = re.compile(r"\s--?[a-z]")
_HASHES = re.compile(r"(\s+--hash[= ]\S+)+")
_LOCAL = re.compile(r"^[./~]|^file:|@\s*(file:|[./~])|^[^@:\s]+\.(whl|zip|tar\.gz|tgz|tar\.bz2)$")
_PASSWORD = re.compile(r"://[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement.

    Args:
        requirement: The requirement, parsed.
        text: What pip is given.
        origin: Who asks for it, for people: ``requirements.txt, line 3``.
    """

    requirement: Requirement
    text: str
    origin: str

    @property
    def counts(self) -> bool:
        """Whether its marker is true for this Python and machine."""
        return self.requirement.marker is None or self.requirement.marker.evaluate({"extra": ""})


@dataclass(slots=True)
class Requirements:
    """Everything that a job asks of pip."""

    wanted: list[Line] = field(default_factory=list)
    """To be installed."""

    constraints: list[Line] = field(default_factory=list)
    """Versions to keep to, of whatever is installed."""

    options: list[str] = field(default_factory=list)
    """Where packages come from, as lines of a requirements file."""

    problems: list[str] = field(default_factory=list)
    """What cannot be read, or makes no sense here, one sentence each."""


def read_requirements(source: Path, packages: Iterable[str], file: str | None) -> Requirements:
    """Read what a job asks for; touches nothing but files below the source directory.

    Args:
        source: The source directory.
        packages: Requirements, each as ``pip install`` takes it.
        file: A requirements file, relative to the source directory.
    """
    found = Requirements()
    for text in packages:
        add_line(found, text.strip(), f"pip_packages {text.strip()!r}")
    if file is not None:
        _add_file(found, source, source / file, "pip_requirements_file", is_constraint=False, including=())
    return found


def add_line(found: Requirements, text: str, origin: str, *, is_constraint: bool = False) -> None:
    """Add one requirement, or the problem with it."""
    shown = without_password(text)
    if text.startswith("-"):
        found.problems.append(
            f"{origin}: {shown.split()[0].split('=')[0]} is no requirement; put options into the requirements file"
        )
    elif _has_password(text):
        found.problems.append(f"{origin}: a password is in the address; {_PASSWORD_HELP}")
    elif _LOCAL.search(text.split(";")[0].strip()):
        found.problems.append(
            f"{origin}: {shown!r} is a local path; the source directory is importable as it is, and other packages "
            "come from an index (PIP_FIND_LINKS may name a folder of wheels)"
        )
    else:
        _add_requirement(found.constraints if is_constraint else found.wanted, found.problems, text, origin)


def without_password(text: str) -> str:
    """A text without the credentials that its addresses hold."""
    return _PASSWORD.sub("://****@", text)


_PASSWORD_HELP = "name a variable instead, as in https://${INDEX_USER}:${INDEX_TOKEN}@host, or use pip's configuration"


def _has_password(text: str) -> bool:
    return any("${" not in found for found in _PASSWORD.findall(text) if found not in ("://git@", "://hg@"))


def _add_requirement(lines: list[Line], problems: list[str], text: str, origin: str) -> None:
    head = text[: found.start()] if (found := _LINE_OPTION.search(text)) else text
    hashes = text[len(head) :]
    if hashes and not _HASHES.fullmatch(hashes):
        problems.append(f"{origin}: of the options of a requirement only --hash is supported, got {hashes.strip()!r}")
        return
    try:
        requirement = Requirement(head)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        problems.append(
            f"{origin}: {without_password(head)!r} is no requirement ({why}); write name, name>=1.5 or "
            "name @ https://..."
        )
        return
    lines.append(Line(requirement, f"{requirement}{hashes}", origin))


def _add_file(
    found: Requirements, source: Path, path: Path, asked_by: str, *, is_constraint: bool, including: tuple[Path, ...]
) -> None:
    """Add a requirements file and what it includes, or the problem with it."""
    name = path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)
    if not path.resolve().is_relative_to(source.resolve()):
        found.problems.append(f"{asked_by}: {name!r} lies outside the source directory {str(source)!r}")
    elif not path.is_file():
        found.problems.append(f"{asked_by}: {name!r} is not a file in {str(source)!r}")
    elif path.resolve() in including:
        found.problems.append(f"{asked_by}: {name!r} includes itself")
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            found.problems.append(f"{asked_by}: {name!r} is not UTF-8 text")
            return
        for number, line in _logical_lines(text):
            _add_file_line(
                found, source, path, line, f"{name}, line {number}", is_constraint, (*including, path.resolve())
            )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, each with the number of its first physical line."""
    number = 1
    for line in _CONTINUED.sub("\0", text).split("\n"):
        plain = _COMMENT.sub("", line.replace("\0", " ")).strip()
        if plain:
            yield number, plain
        number += 1 + line.count("\0")


def _add_file_line(
    found: Requirements,
    source: Path,
    path: Path,
    line: str,
    origin: str,
    is_constraint: bool,
    including: tuple[Path, ...],
) -> None:
    if not line.startswith("-"):
        add_line(found, line, origin, is_constraint=is_constraint)
        return
    option, value = _split_option(line)
    if option in INCLUDES:
        _add_file(
            found,
            source,
            path.parent / value,
            origin,
            is_constraint=is_constraint or INCLUDES[option] == "-c",
            including=including,
        )
    elif option not in FILE_OPTIONS:
        found.problems.append(f"{origin}: {option} is not supported here; {_instead(option)}")
    elif _has_password(value):
        found.problems.append(f"{origin}: a password is in the address; {_PASSWORD_HELP}")
    else:
        found.options.append(f"{FILE_OPTIONS[option]} {value}".strip())


def _split_option(line: str) -> tuple[str, str]:
    if not line.startswith("--"):
        return line[:2], line[2:].lstrip(" \t=")
    option, _, value = re.sub(r"[\s=]+", " ", line, count=1).partition(" ")
    return option, value.strip()


def _instead(option: str) -> str:
    if option in ("-e", "--editable"):
        return "the source directory is importable as it is"
    return f"supported are -r, -c and {', '.join(sorted(set(FILE_OPTIONS.values())))}"
