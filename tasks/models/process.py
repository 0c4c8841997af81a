"""A Python process for code that this one must not run: pickles, and factories of the training project.

Requests and answers are JSON and plain arrays (never pickles: what such a process sends is read here), as messages
over a socket pair. The process ends with this one, and takes what it started with it.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainyard.tasks.errors import ExportError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Facts = dict[str, Any]
_LOG_TAIL_BYTES = 2000
_CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_", "PREFECT_", "SSH_")
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "CREDENTIAL", "API_KEY")


class ModelProcess:
    """A child that serves requests (see ``trainyard.tasks.models.serving``); use it as a context manager.

    Args:
        module: Dotted name of the module to run.
        source: The training project: the working directory, and first on its import path.
    """

    def __init__(self, module: str, source: Path) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile(prefix="trainyard-model-")  # noqa: SIM115 - closed with the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(source.resolve())],
                cwd="/",  # before Python 3.11 "-m" imports from here first: a module of the project would hide another
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that it can be ended with all it started
            )
        self._connection = Connection(ours.detach())

    def __enter__(self) -> "ModelProcess":
        """Give the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def ask(
        self, request: str, facts: Mapping[str, Any], arrays: "Mapping[str, Array] | None" = None
    ) -> "tuple[Facts, dict[str, Array]]":
        """Send a request and wait for its answer.

        Args:
            request: Name of the handler.
            facts: What it gets, as JSON.
            arrays: Arrays that it gets.

        Raises:
            ExportError: The handler failed, or the process ended; says why.
        """
        try:
            self._connection.send_bytes(json.dumps({"request": request, **facts}).encode())
            self._connection.send_bytes(pack(arrays or {}))
            answer = json.loads(self._connection.recv_bytes())
            returned = unpack(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise ExportError(self._last_words()) from error
        if "error" in answer:
            raise ExportError(answer["error"])
        return answer, returned

    def close(self) -> None:
        """End the process and what it started; harmless where it has ended."""
        self._connection.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        hint = "; the system ends processes so when memory runs out" if -status == signal.SIGKILL else ""
        self._log.seek(max(0, self._log.seek(0, io.SEEK_END) - _LOG_TAIL_BYTES))
        tail = self._log.read().decode(errors="replace").strip() or "(it printed nothing)"
        return f"The process that loads the trained model ended ({how}{hint}). Its last words:\n{tail}"


def pack(arrays: "Mapping[str, Array]") -> bytes:
    """Arrays as the bytes of an ``.npz`` file."""
    import numpy as np

    buffer = io.BytesIO()
    members: dict[str, Any] = {f"array {name}": array for name, array in arrays.items()}  # apart from savez's own names
    np.savez(buffer, **members)
    return buffer.getvalue()


def unpack(data: bytes) -> "dict[str, Array]":
    """The arrays that ``pack`` packed; objects are refused, so nothing is run."""
    import numpy as np

    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name.removeprefix("array "): archive[name] for name in archive.files}


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without credentials, which a pickle could send away."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(_CREDENTIALS) and not any(word in name.upper() for word in _SECRET_WORDS)
    }
    return {**kept, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
