"""What the benchmarks share: run a contender as a process of its own, and show what was measured."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"  # git ignores it


@dataclass(frozen=True)
class Measurement:
    """One run of one contender at one case."""

    case: str
    contender: str
    round: int
    seconds: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Finished:
    """A program that came to its end."""

    seconds: float  # these two are its own figures, where its last line is {"seconds": ..., "cpu_s": ...}
    cpu_s: float
    peak_mib: float

    def as_measurement(self, case: str, contender: str, turn: int) -> Measurement:
        """What it says of a contender at a case."""
        return Measurement(case, contender, turn, self.seconds, self.cpu_s, self.peak_mib)


def run_process(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a program to its end; one that fails ends the benchmark."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE) as process:
        assert process.stdout
        output = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}:\n{output}")
    cpu_s = usage.ru_utime + usage.ru_stime
    with suppress(IndexError, ValueError, KeyError, TypeError):
        own = json.loads(output.strip().splitlines()[-1])
        seconds, cpu_s = own["seconds"], own["cpu_s"]
    return Finished(seconds, cpu_s, usage.ru_maxrss / 1024)


def python(*arguments: str) -> list[str]:
    """The command of a module of ours."""
    return [sys.executable, "-m", *arguments]


def report(
    title: str, measurements: Sequence[Measurement], baseline: str, facts: Mapping[str, Any], path: Path
) -> None:
    """Print a table of medians and ratios, and write everything as JSON."""
    table = Table(title=title, title_justify="left")
    for name in ("case", "contender", "median s", "range s", f"of {baseline}", "CPU s", "peak MiB"):
        table.add_column(name, justify="left" if name in ("case", "contender") else "right")
    summary = []
    for case in dict.fromkeys(m.case for m in measurements):
        contenders = dict.fromkeys(m.contender for m in measurements if m.case == case)
        runs = {name: [m for m in measurements if (m.case, m.contender) == (case, name)] for name in contenders}
        medians = {name: statistics.median(m.seconds for m in found) for name, found in runs.items()}
        for name, found in runs.items():
            seconds = [m.seconds for m in found]
            ratio = medians[name] / medians[baseline] if baseline in medians else None
            peak_mib = max(m.peak_mib for m in found)
            cpu_s = statistics.median(m.cpu_s for m in found)
            shown_ratio = "" if ratio is None else f"{ratio:.2f}"
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
            table.add_row(case, name, f"{medians[name]:.2f}", spread, shown_ratio, f"{cpu_s:.2f}", f"{peak_mib:.0f}")
            figures = {"median_s": medians[name], "ratio": ratio, "cpu_s": cpu_s, "peak_mib": peak_mib}
            summary.append({"case": case, "contender": name, **figures})
    Console(width=120).print(table)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}
    document = {"title": title, "machine": machine, "facts": dict(facts), "summary": summary}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**document, "measurements": [asdict(m) for m in measurements]}, indent=1))
    print(f"Written to {path}")
