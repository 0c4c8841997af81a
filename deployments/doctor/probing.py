"""Ask a library in a process of its own, so that a crash of native code is an answer like any other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trainyard.tasks.runtime.supervisor import descendants
from trainyard.tasks.runtime.watchdog import start_time

PROBES = "trainyard.deployments.doctor.probes"
TIMEOUT_S = 120.0
END_S = 10.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found.

    Args:
        facts: What it printed as JSON; empty where it failed.
        failure: How it failed, in one line; empty where it did not.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


def ask(probe: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Run one of the probes with this interpreter.

    Args:
        probe: Name of a module in ``probes``.
        timeout_s: Seconds to wait for it.
    """
    return run_probe([sys.executable, "-m", f"{PROBES}.{probe}"], timeout_s)


def run_probe(argv: Sequence[str], timeout_s: float, env: Mapping[str, str] = os.environ) -> Answer:
    """Run a program whose last line of output is a JSON object.

    Where it does not end in time it gets SIGTERM, on which ``mpirun`` ends its ranks too; then all that is left of it
    gets SIGKILL.
    """
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return Answer(failure=f"no answer within {timeout_s:.0f} s")
    if process.returncode != 0:
        return Answer(failure=_describe_end(process.returncode, errors))
    return _read_answer(output)


def _end(process: "subprocess.Popen[str]") -> None:
    """End a program and all that it started; what ``mpirun`` leaves behind may hold the pipes, so they are not read."""
    family = {pid: start_time(pid) for pid in (process.pid, *descendants(process.pid))}
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=END_S)
    family.update({pid: start_time(pid) for pid in descendants(process.pid)})
    for pid, started in family.items():
        if started is not None and start_time(pid) == started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _describe_end(exit_code: int, errors: str) -> str:
    if exit_code < 0:
        return f"died with {signal.Signals(-exit_code).name}"
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {exit_code}"


def _read_answer(output: str) -> Answer:
    try:
        return Answer(facts=json.loads(output.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        return Answer(failure=f"an answer that is not JSON: {output[-200:]!r}")
