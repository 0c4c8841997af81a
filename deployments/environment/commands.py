"""Run a command to its end, its output in a log file."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Args:
        exit_code: 0 for success, negative for a signal.
        output: What it printed, both streams, undecodable bytes replaced.
    """

    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class CommandLog:
    """A file that collects the output of commands.

    Args:
        path: The file; made, with its folder, where it is missing.
        inherited_fds: Descriptors that the commands inherit, such as a lock's.
    """

    path: Path
    inherited_fds: tuple[int, ...] = ()

    def run(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Outcome:
        """Run a command without input and append what it prints to the log.

        Args:
            argv: The program and its arguments.
            env: Its whole environment; this process's own by default.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n".encode())
            log.flush()
            start = log.tell()
            ended = subprocess.run(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.inherited_fds,
                check=False,
            )
        return Outcome(ended.returncode, self._read_from(start))

    def _read_from(self, start: int) -> str:
        with self.path.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")
