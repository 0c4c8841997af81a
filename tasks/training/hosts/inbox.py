"""What the nodes send while a training runs, written to the run's directories here."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from trainyard.tasks.runtime.node.pool import safe_relative
from trainyard.tasks.runtime.node.protocol import Frame

EVENTS = {"growth", "chunk", "whole", "broken", "link", "removed"}


class Inbox:
    """Receives files from all nodes. Where two send the same file, the first node's (rank 0's) is kept.

    Args:
        folders: Directories here, by the name that the nodes use.
        on_launcher_output: Told the number of a node and what its launcher has said.
    """

    def __init__(self, folders: Mapping[str, Path], on_launcher_output: Callable[[int, bytes], None]) -> None:
        self._folders = folders
        self._on_launcher_output = on_launcher_output
        self._owners: dict[tuple[str, str], int] = {}
        self._partial: dict[tuple[int, str, str], IO[bytes]] = {}
        self._lock = threading.Lock()
        self.hidden: dict[tuple[str, str], set[int]] = {}
        """Files of which a later node's version was left out, and those nodes."""

    def take(self, node: int, frame: Frame) -> bool:
        """Take what a node has sent; False where the frame is not about a file."""
        event, folder, name = (str(frame.head.get(key)) for key in ("event", "folder", "path"))
        if event not in EVENTS or folder not in self._folders:
            return False
        if (folder, name) == ("run", "launcher.log"):
            self._on_launcher_output(node, frame.payload)
            return True
        with self._lock:
            if event == "chunk" or self._owns(node, folder, name, event):
                path = self._folders[folder] / safe_relative(name)
                getattr(self, f"_{event}")((node, folder, name), path, frame)
            else:
                self._drop((node, folder, name))
        return True

    def _owns(self, node: int, folder: str, name: str, event: str) -> bool:
        owner = self._owners.get((folder, name), node)
        if owner < node:
            self.hidden.setdefault((folder, name), set()).add(node)
            return False
        if event == "removed":
            return self._owners.pop((folder, name), 0) == node
        self._owners[folder, name] = node
        if owner > node:
            self.hidden.setdefault((folder, name), set()).add(owner)
        return True

    def _growth(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as out:
            if out.tell() == frame.head["offset"]:
                out.write(frame.payload)

    def _chunk(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        if key not in self._partial:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name[:200]}.{key[0]}.partial")
            self._partial[key] = scratch.open("wb")
        self._partial[key].write(frame.payload)

    def _whole(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        if key not in self._partial:  # an empty file
            self._chunk(key, path, Frame({}))
        with self._partial.pop(key) as out:
            os.fchmod(out.fileno(), 0o755 if frame.head["executable"] else 0o644)
        os.replace(out.name, path)

    def _broken(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        self._drop(key)

    def _drop(self, key: tuple[int, str, str]) -> None:
        if key in self._partial:
            with self._partial.pop(key) as out:
                Path(out.name).unlink(missing_ok=True)

    def _link(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        """A link, where it stays inside its folder: what nodes say must not reach files of this machine."""
        target = Path(os.path.normpath(path.parent / str(frame.head["target"])))
        if Path(frame.head["target"]).is_absolute() or not target.is_relative_to(self._folders[key[1]]):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name[:200]}.link")
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
        scratch.symlink_to(frame.head["target"])
        os.replace(scratch, path)

    def _removed(self, key: tuple[int, str, str], path: Path, frame: Frame) -> None:
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Drop what did not arrive whole."""
        with self._lock:
            for key in list(self._partial):
                self._drop(key)
