"""Put on a node what it lacks: objects by their digest, and directories made of them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_file, digest_value, read_chunks
from trainyard.tasks.training.hosts.connection import Connection, HostProblem


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file here, known by its content."""

    path: Path
    sha256: str
    num_bytes: int
    executable: bool = False


Tree = Mapping[str, LocalFile]
"""Files by their path relative to a directory."""


def read_tree(files: Mapping[str, Path]) -> dict[str, LocalFile]:
    """Hash files."""
    tree = {}
    for name, path in files.items():
        sha256, num_bytes = digest_file(path)
        tree[name] = LocalFile(path, sha256, num_bytes, os.access(path, os.X_OK))
    return tree


def files_below(directory: Path) -> dict[str, Path]:
    """Every regular file below a directory, by its relative path."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(directory).as_posix(): path for path in files}


def tree_digest(tree: Tree) -> str:
    """A tree's identity."""
    return digest_value(sorted([name, file.sha256, file.executable] for name, file in tree.items()))


def send_objects(connection: Connection, root: str, files: Iterable[LocalFile]) -> int:
    """Send the contents that a node does not have; each is hashed when it has arrived.

    Returns:
        Bytes sent.

    Raises:
        HostProblem: There is no space, or what arrived is not what was to be sent.
    """
    by_digest = {file.sha256: file for file in files}
    answer = connection.ask("lacking", root=root, digests=list(by_digest))
    missing = [by_digest[sha256] for sha256 in answer["digests"]]
    num_bytes = sum(file.num_bytes for file in missing)
    if num_bytes > answer["free_bytes"]:
        raise HostProblem(
            connection.host.address,
            f"it lacks {num_bytes:,} bytes of source and data, and {root} has {answer['free_bytes']:,} bytes free",
        )
    for file in missing:
        send_file(connection, file)
    if missing:
        _settle(connection)
    return num_bytes


def send_file(connection: Connection, file: LocalFile, destination: str | None = None) -> None:
    """Send a file into the node's pool, or to a path of its own; ``settle`` tells how it went."""
    with file.path.open("rb") as stream:
        for chunk in read_chunks(stream):
            connection.tell("chunk", chunk, sha256=file.sha256)
    connection.tell("adopt", sha256=file.sha256, path=destination)


def build_tree(connection: Connection, destination: str, tree: Tree, *, linked: bool) -> None:
    """Have the node make a directory of objects that it has."""
    entries = [[name, file.sha256, file.executable] for name, file in tree.items()]
    connection.ask("build", destination=destination, entries=entries, linked=linked)


def send_directory(connection: Connection, directory: Path, destination: str) -> None:
    """Copy a directory as it is, links inside it included; nothing of it goes into the pool."""
    for name, file in read_tree(files_below(directory)).items():
        send_file(connection, file, f"{destination}/{name}")
    _settle(connection)
    send_links(connection, links_below(directory), destination)


def links_below(directory: Path) -> dict[str, str]:
    """The target of every link below a directory, by the link's relative path."""
    links = (path for path in sorted(directory.rglob("*")) if path.is_symlink())
    return {path.relative_to(directory).as_posix(): os.readlink(path) for path in links}


def send_links(connection: Connection, links: Mapping[str, str], destination: str) -> None:
    """Make links on a node, below a directory there."""
    if links:
        connection.ask("link", links=[[f"{destination}/{name}", target] for name, target in links.items()])


def _settle(connection: Connection) -> None:
    broken = connection.ask("settle")
    if broken:
        raise HostProblem(connection.host.address, f"files did not arrive as they were sent: {'; '.join(broken[:3])}")
