"""One training's part on this node: its directories, its processes, and what it sends back while it runs."""

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from trainyard.tasks.runtime.node import processes
from trainyard.tasks.runtime.node.follow import Follower, FollowerThread
from trainyard.tasks.runtime.node.protocol import Channel
from trainyard.tasks.runtime.scratch import remove_abandoned, scratch_prefix

FOLLOW_INTERVAL_S = 0.5
LOCK_WAIT_S = 30.0
LAUNCHER_LOG = "launcher.log"
RELAY = "\0relay"
"""Stands, among a launcher's arguments, for our stand-in for ssh."""


class NodeJob:
    """Prepared, started, ended and cleared away at the word of the pipeline's machine.

    Args:
        spec: ``mark``, ``root``, and relative to that the directories ``area``, ``work`` (in it), ``checkpoints`` and
            ``run``, and the file ``lock``; ``first``, whether rank 0 is here.
        channel: To the pipeline's machine.
    """

    def __init__(self, spec: dict[str, Any], channel: Channel) -> None:
        root = Path(spec["root"])
        self.mark = str(spec["mark"])
        self.work, self.checkpoints, self.run = (root / spec[name] for name in ("work", "checkpoints", "run"))
        self._area = root / spec["area"]
        self._own = (self._area, self.checkpoints, self.run)
        parts = [(self.work / name).relative_to(self._area).as_posix() for name in ("outputs", "logs")]
        only = (".",) if spec["first"] else tuple(parts)
        self._made = Follower("area", self._area, channel, growing=(), only=only)
        self._channel = channel
        self._lock = _lock(root / spec["lock"])
        remove_abandoned()
        self._scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix("node")))
        self._children: dict[int, processes.Process] = {}
        self._waiting: dict[int, socket.socket] = {}
        self._threads: list[FollowerThread] = []
        self._env: dict[str, str] = {}
        for directory in self._own:  # of an attempt that was killed
            shutil.rmtree(directory, ignore_errors=True)
        for directory in (self.checkpoints, self.run / "ranks", self.run / "records"):
            directory.mkdir(parents=True)

    def begin(self, env: dict[str, str]) -> None:
        """The files are here: follow what will be written.

        Args:
            env: Added to this machine's own environment for all processes of the job.
        """
        for folder in ("outputs", "logs"):
            (self.work / folder).mkdir(exist_ok=True)
        self._made.assume_sent()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "TRAINYARD_"))}
        self._env = {**own, "TMPDIR": str(self._scratch), **env, processes.MARK_VARIABLE: self.mark}
        checkpoints = Follower("checkpoints", self.checkpoints, self._channel, growing=())
        checkpoints.assume_sent()
        words = [Follower("run", self.run, self._channel)]
        self._threads = [
            FollowerThread(followers, FOLLOW_INTERVAL_S, self._complain) for followers in (words, [checkpoints])
        ]

    def launch(self, argv: list[str], relay_source: str) -> None:
        """Start the launcher; see ``RELAY``."""
        relay = self._open_relay(relay_source)
        self._start(0, [relay if word == RELAY else word for word in argv])

    def start_daemon(self, number: int, command: str) -> None:
        """Start what a launcher on another node asked for, as ssh would: through the login shell."""
        shell = pwd.getpwuid(os.geteuid()).pw_shell
        self._start(number, [shell if os.access(shell, os.X_OK) else "/bin/sh", "-c", command])

    def daemon_ended(self, number: int, returncode: int) -> None:
        """Tell the launcher on this node that a daemon it asked for has ended."""
        connection = self._waiting.pop(number, None)
        if connection is not None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(f"{returncode % 256}\n".encode())

    def end(self, grace_s: float) -> int:
        """End all processes of the job; how many did not do so by themselves."""
        asked = [child.pid for child in self._children.values() if child.poll() is None]
        return processes.end_all(self.mark, asked, grace_s)

    def collect(self) -> None:
        """Send everything that was not sent yet; nothing runs any more."""
        for thread in self._threads:
            thread.finish()
        self._threads = []
        self._made.poll(final=True)

    def clear(self) -> None:
        """Remove what is on the pipeline's machine by now."""
        for directory in self._own:
            shutil.rmtree(directory, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Remove what nobody else has a use for."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        os.close(self._lock)

    def _start(self, number: int, argv: list[str]) -> None:
        child = processes.start(argv, self._env, str(self.work), self.run / LAUNCHER_LOG)
        self._children[number] = child
        threading.Thread(target=self._report_end, args=(number, child), daemon=True).start()

    def _report_end(self, number: int, child: processes.Process) -> None:
        returncode = child.wait()
        with contextlib.suppress(OSError):
            self._channel.send({"event": "ended", "number": number, "returncode": returncode})

    def _open_relay(self, source: str) -> str:
        """Listen for the launcher's requests; gives the command that makes them, as one text without quotes."""
        path = self._scratch / "relay"
        (self._scratch / "relay.py").write_text(source)
        words = (sys.executable, "-I", "-S", str(self._scratch / "relay.py"), str(path))
        script = self._scratch / "ssh"
        script.write_text(f'exec {shlex.join(words)} "$@"\n')
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(128)
        threading.Thread(target=self._serve_relay, args=(server,), daemon=True).start()
        return f"/bin/sh {script}"

    def _serve_relay(self, server: socket.socket) -> None:
        number = 0
        with server, contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                number += 1
                self._waiting[number] = connection
                threading.Thread(target=self._pass_on, args=(number, connection), daemon=True).start()

    def _pass_on(self, number: int, connection: socket.socket) -> None:
        line = connection.makefile("rb").readline()
        with contextlib.suppress(OSError):
            self._channel.send({"event": "daemon", "number": number, "request": line.decode()})

    def _complain(self, message: str) -> None:
        with contextlib.suppress(OSError):
            self._channel.send({"event": "complaint", "message": message})


def _lock(path: Path) -> int:
    """Hold a lock until this process ends; an earlier attempt that is still being stopped has it for a moment.

    Raises:
        TimeoutError: Somebody else keeps it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise TimeoutError(f"another attempt at this training is still running on this node ({path})") from None
            time.sleep(0.1)
