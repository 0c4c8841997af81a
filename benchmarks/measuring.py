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
    title: str, measurements: Sequence[Measurement], baselines: Sequence[str], facts: Mapping[str, Any], path: Path
) -> None:
    """Print a table of medians, and of ratios to the medians of the baselines; write everything as JSON."""
    ratios = [f"of {name}" for name in baselines]
    caption = "A ratio below 1 is less time than that takes. CPU: user and system seconds of the contender itself."
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("case", "contender", "median s", "range s", *ratios, "CPU s", "peak MiB"):
        table.add_column(name, justify="left" if name in ("case", "contender") else "right")
    summary = []
    for case in dict.fromkeys(m.case for m in measurements):
        found = {name: runs for name in _contenders(measurements) if (runs := _runs(measurements, case, name))}
        medians = {name: statistics.median(m.seconds for m in runs) for name, runs in found.items()}
        for name, runs in found.items():
            figures = _figures(runs, {each: medians[each] for each in baselines if each in medians})
            summary.append({"case": case, "contender": name, **figures})
            shown = [f"{figures[ratio]:.2f}" if ratio in figures else "" for ratio in ratios]
            spread = f"{figures['least_s']:.2f} to {figures['most_s']:.2f}"
            table.add_row(
                *(case, name, f"{figures['median_s']:.2f}", spread, *shown),
                *(f"{figures['cpu_s']:.2f}", f"{figures['peak_mib']:.0f}"),
            )
        table.add_section()
    Console(width=140).print(table)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}
    document = {"title": title, "machine": machine, "facts": dict(facts), "summary": summary}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**document, "measurements": [asdict(m) for m in measurements]}, indent=1))
    print(f"Written to {path}")


def _contenders(measurements: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(m.contender for m in measurements))


def _runs(measurements: Sequence[Measurement], case: str, contender: str) -> list[Measurement]:
    return [m for m in measurements if (m.case, m.contender) == (case, contender)]


def _figures(runs: Sequence[Measurement], baselines: Mapping[str, float]) -> dict[str, float]:
    seconds = [m.seconds for m in runs]
    median_s = statistics.median(seconds)
    return {
        "median_s": median_s,
        "least_s": min(seconds),
        "most_s": max(seconds),
        "cpu_s": statistics.median(m.cpu_s for m in runs),
        "peak_mib": max(m.peak_mib for m in runs),
        **{f"of {name}": median_s / baseline_s for name, baseline_s in baselines.items()},
    }
