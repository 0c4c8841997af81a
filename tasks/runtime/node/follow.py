"""What a run writes on a node, sent as it is written.

Logs and records only grow: new bytes are sent. Any other file is sent whole, once it has stayed as it is from one
look to the next, and again where it changed.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from trainyard.tasks.runtime.node.protocol import CHUNK_BYTES, Channel

_NOT_SENT = {"__pycache__"}
Signature = tuple[int, int, int]


class Follower:
    """Sends the files of one directory.

    Args:
        folder: What the other side calls it.
        directory: Where it is; need not exist yet.
        channel: Where to send.
        growing: Endings of the names of files that only grow.
        only: Directories in it to look at; all by default.
    """

    def __init__(
        self,
        folder: str,
        directory: Path,
        channel: Channel,
        *,
        growing: tuple[str, ...] = (".log", ".jsonl"),
        only: tuple[str, ...] = (".",),
    ) -> None:
        self._folder = folder
        self._directory = directory
        self._channel = channel
        self._growing = growing
        self._only = only
        self._offsets: dict[str, int] = {}
        self._seen: dict[str, Signature] = {}
        self._sent: dict[str, Signature | str] = {}

    def assume_sent(self) -> None:
        """What is there now came from the other side."""
        for name, path in self._walk():
            self._sent[name] = os.readlink(path) if path.is_symlink() else _signature(path.lstat())

    def poll(self, *, final: bool = False) -> None:
        """Send what is new.

        Args:
            final: Nobody writes any more: also what has changed only now.
        """
        present = set()
        for name, path in self._walk():
            present.add(name)
            try:
                self._look_at(name, path, final)
            except FileNotFoundError:
                continue  # replaced or removed between two glances: the next one tells
        for name in [name for name in self._sent if name not in present]:
            del self._sent[name]
            self._send("removed", name)

    def _look_at(self, name: str, path: Path, final: bool) -> None:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            if self._sent.get(name) != target:
                self._send("link", name, target=target)
                self._sent[name] = target
        elif name.endswith(self._growing) and status.st_size >= self._offsets.get(name, 0):
            self._send_growth(name, path)
        elif stat.S_ISREG(status.st_mode):
            signature = _signature(status)
            stable = final or self._seen.get(name) == signature
            self._seen[name] = signature
            if stable and self._sent.get(name) != signature and self._send_whole(name, path, signature):
                self._sent[name] = signature

    def _send_growth(self, name: str, path: Path) -> None:
        with path.open("rb") as stream:
            stream.seek(self._offsets.get(name, 0))
            while chunk := stream.read(CHUNK_BYTES):
                self._send("growth", name, chunk, offset=stream.tell() - len(chunk))
            self._offsets[name] = stream.tell()

    def _send_whole(self, name: str, path: Path, signature: Signature) -> bool:
        """Send a file's bytes; whether they were those of one and the same file from first to last."""
        with path.open("rb") as stream:
            if _signature(os.fstat(stream.fileno())) != signature:
                return False
            while chunk := stream.read(CHUNK_BYTES):
                self._send("chunk", name, chunk)
            whole = _signature(os.fstat(stream.fileno())) == signature
            executable = bool(os.fstat(stream.fileno()).st_mode & 0o111)
        self._send("whole" if whole else "broken", name, executable=executable)
        return whole

    def _send(self, event: str, name: str, payload: bytes = b"", **more: object) -> None:
        self._channel.send({"event": event, "folder": self._folder, "path": name, **more}, payload)

    def _walk(self) -> Iterator[tuple[str, Path]]:
        for directory, folders, files in (step for top in self._only for step in os.walk(self._directory / top)):
            here = Path(directory)
            links = [name for name in folders if (here / name).is_symlink()]
            folders[:] = sorted(name for name in folders if name not in _NOT_SENT)
            for name in [*links, *sorted(files)]:
                yield (here / name).relative_to(self._directory).as_posix(), here / name


def _signature(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns


class FollowerThread:
    """Polls followers until it is stopped, in a thread: a large file must not hold up what others have to say.

    Args:
        followers: What to follow.
        interval_s: Seconds between two looks.
        on_error: Told of what cannot be read.
    """

    def __init__(self, followers: list[Follower], interval_s: float, on_error: Callable[[str], None]) -> None:
        self._followers = followers
        self._interval_s = interval_s
        self._on_error = on_error
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop, and send what is left."""
        self._stop.set()
        self._thread.join()
        self._poll(final=True)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._poll(final=False)

    def _poll(self, *, final: bool) -> None:
        for follower in self._followers:
            try:
                follower.poll(final=final)
            except BrokenPipeError:
                return  # the reader of the other direction ends everything
            except OSError as error:
                self._on_error(f"{error}")
