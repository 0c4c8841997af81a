"""The example's training script, as plain Python and under real ``mpirun``."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits"
MPIRUN = Path(sys.executable).parent / "mpirun"
MPI_OPTIONS = ["--bind-to", "none", "--mca", "pml", "ob1", "--mca", "mpi_yield_when_idle", "1", "-np", "2"]

# The script as it is, which also tells what each rank took as its share and ended with.
OBSERVED = f"""
import sys
sys.path.insert(0, {str(DIGITS)!r})
import torch, train

shares, own_share, fit = [], train.own_share, train.fit

def observed_share(indices, world):
    shares.append((indices, own_share(indices, world)))
    return shares[-1][1]

def observed_fit(args, world, model, *rest):
    fit(args, world, model, *rest)
    torch.save({{"shares": shares, "parameters": model.state_dict()}}, f"observed-{{world.rank}}.pt")

train.own_share, train.fit = observed_share, observed_fit
train.main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("datastore") / "with space"
    for told in ("Wrote images.npy and labels.npy", "already in"):
        command = [sys.executable, str(EXAMPLES / "prepare_digits.py"), "--to", str(directory)]
        assert told in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return directory


@pytest.fixture(scope="module")
def train() -> Iterator[ModuleType]:
    """The script as a module."""
    names = ("train", "model", "world", "checkpoints")
    sys.path.insert(0, str(DIGITS))
    try:
        yield importlib.import_module("train")
    finally:
        sys.path.remove(str(DIGITS))
        for name in names:
            sys.modules.pop(name, None)


def environment(directory: Path) -> dict[str, str]:
    foreign = ("OMPI_", "PMIX_", "HOROVOD_", "TRAINYARD_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return inherited | {
        "TRAINYARD_METRICS_DIR": str(directory / "metrics"),
        "TRAINYARD_CHECKPOINT_DIR": str(directory / "checkpoints"),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PATH": f"{MPIRUN.parent}:{os.environ['PATH']}",
    }


def start_two_ranks(directory: Path, data: Path) -> "subprocess.Popen[bytes]":
    directory.mkdir(exist_ok=True)
    script = directory / "observed.py"
    script.write_text(OBSERVED)
    python = [sys.executable, "-m", "mpi4py", str(script), "--data-dir", str(data)]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [str(MPIRUN), *MPI_OPTIONS, *python],
            cwd=directory, env=environment(directory), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def finish(ranks: "subprocess.Popen[bytes]", directory: Path) -> list[dict[str, object]]:
    """Wait for the ranks' good end; what each of them saw."""
    try:
        assert ranks.wait(timeout=120) == 0, (directory / "log").read_text()
    finally:
        stop(ranks)
    return [torch.load(directory / f"observed-{rank}.pt", weights_only=True) for rank in range(2)]


def stop(ranks: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to mpirun ends its ranks."""
    if ranks.poll() is None:
        ranks.send_signal(signal.SIGTERM)
        ranks.wait(timeout=30)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, list[dict[str, object]]]:
    """A whole run on two ranks: its directory, and what each rank saw."""
    directory = tmp_path_factory.mktemp("two-ranks")
    return directory, finish(start_two_ranks(directory, data), directory)


def scalars(directory: Path, rank: int) -> dict[str, list[float]]:
    lines = (directory / "metrics" / f"rank-{rank:05d}.jsonl").read_text().splitlines()
    series: dict[str, list[float]] = {}
    for record in map(json.loads, lines):
        if record["kind"] == "scalar":
            series.setdefault(record["name"], []).append(float(record["value"]))
    return series


def check_outputs(outputs: Path) -> None:
    """The program takes batches of any size, and is right about the held-out images."""
    program = torch.export.load(outputs / "model.pt2").module()
    samples = np.load(outputs / "validation_samples.npz")
    assert set(samples.files) == {"image", "labels"}
    images, labels = torch.from_numpy(samples["image"]), torch.from_numpy(samples["labels"])
    assert images.shape == (359, 1, 8, 8) and images.dtype == torch.float32
    for batch_size in (1, 7, len(images)):
        assert program(images[:batch_size]).shape == (batch_size, 10)
    assert (program(images).argmax(dim=1) == labels).double().mean() >= 0.95


def test_one_process_learns_the_digits_without_a_launcher(tmp_path: Path, data: Path) -> None:
    # Without Horovod: a module of that name that cannot be imported.
    (tmp_path / "horovod.py").write_text("raise ImportError('one process needs no Horovod')")
    command = [sys.executable, str(DIGITS / "train.py"), "--data-dir", str(data), "--amsgrad"]
    variables = environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=variables, check=True, timeout=120)

    metrics = scalars(tmp_path, rank=0)
    assert metrics["accuracy"][-1] >= 0.95
    assert metrics["epoch"] == list(range(1, 21))
    assert metrics["progress"][-1] == 1
    assert metrics["loss"][-1] < metrics["loss"][0]
    check_outputs(tmp_path / "outputs")


def test_two_ranks_learn_the_digits(two_ranks: tuple[Path, list[dict[str, object]]]) -> None:
    directory, _ = two_ranks
    metrics = [scalars(directory, rank) for rank in range(2)]
    assert metrics[0]["accuracy"][-1] >= 0.95
    assert set(metrics[1]) == {"samples_per_second"}
    assert all(len(of_rank["samples_per_second"]) == 20 for of_rank in metrics)
    check_outputs(directory / "outputs")


def test_two_ranks_of_torchrun_learn_the_digits_and_go_on_where_they_were(tmp_path: Path, data: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for epochs in ("3", "20"):
        command = [*torchrun, str(DIGITS / "train.py"), "--data-dir", str(data), "--epochs", epochs]
        done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "Going on after epoch 3" in done.stdout
    metrics = scalars(tmp_path, rank=0)
    assert metrics["epoch"] == list(range(1, 21))
    assert metrics["accuracy"][-1] >= 0.95
    check_outputs(tmp_path / "outputs")


def test_two_ranks_end_with_identical_parameters(two_ranks: tuple[Path, list[dict[str, object]]]) -> None:
    first, second = (seen["parameters"] for seen in two_ranks[1])
    assert isinstance(first, dict) and isinstance(second, dict)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_epoch_takes_each_sample_once(two_ranks: tuple[Path, list[dict[str, object]]]) -> None:
    first, second = (seen["shares"] for seen in two_ranks[1])
    assert isinstance(first, list) and isinstance(second, list)
    assert len(first) == len(second)
    for (whole, own), (same_whole, other) in zip(first, second, strict=True):
        assert torch.equal(whole, same_whole)
        assert torch.equal(torch.cat([own, other]).sort().values, whole.sort().values)
    # One epoch: 1,438 training samples in batches of 64, then the held-out ones.
    num_batches = -(-1438 // 64)
    epoch = torch.cat([whole for whole, _ in first[:num_batches]])
    assert torch.equal(epoch.sort().values, torch.arange(1438))
    assert len(first[num_batches][0]) == 359


def test_a_stopped_run_goes_on_from_its_newest_good_checkpoint(
    tmp_path: Path, data: Path, two_ranks: tuple[Path, list[dict[str, object]]]
) -> None:
    ranks = start_two_ranks(tmp_path, data)
    try:
        wait_for(tmp_path / "checkpoints" / "checkpoint-00004.pt", ranks)
    finally:
        stop(ranks)
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    assert newest.name < "checkpoint-00020.pt", "it was too fast to be stopped"
    newest.write_bytes(newest.read_bytes()[:1000])

    resumed = finish(start_two_ranks(tmp_path, data), tmp_path)

    assert f"{newest} cannot be read and is passed over" in (tmp_path / "log").read_text()
    good = int(newest.stem.removeprefix("checkpoint-")) - 1
    assert f"Going on after epoch {good}" in (tmp_path / "log").read_text()
    for seen, uninterrupted in zip(resumed, two_ranks[1], strict=True):
        ours, theirs = seen["parameters"], uninterrupted["parameters"]
        assert isinstance(ours, dict) and isinstance(theirs, dict)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def wait_for(path: Path, ranks: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert ranks.poll() is None and time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 63, 64, 65, 129, 1438])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_disjoint_and_cover_everything(train: ModuleType, num_samples: int, size: int) -> None:
    batches = train.global_batches(num_samples, 32 * size, seed=1)
    worlds = [train.World() for _ in range(size)]
    for rank, world in enumerate(worlds):
        world.rank, world.size = rank, size
    shares = [train.own_share(batch, world) for batch in batches for world in worlds]
    assert torch.cat(shares).sort().values.tolist() == list(range(num_samples))
    assert max(map(len, shares)) <= 32


def test_the_split_is_stratified_and_the_same_for_every_run(train: ModuleType, data: Path) -> None:
    samples = train.read_samples(data)
    training, held_out = train.split(samples, 0.2)
    again = train.split(samples, 0.2)[1]
    assert len(training) + len(held_out) == len(samples) == 1797
    assert torch.equal(held_out.images, again.images)
    share = held_out.labels.bincount() / samples.labels.bincount()
    assert share.min() > 0.195 and share.max() < 0.205


def test_the_learning_rate_warms_up_to_that_of_all_ranks(train: ModuleType) -> None:
    args = train.argparse.Namespace(lr=0.1, warmup_epochs=2.0, lr_decay=0.5)
    rates = [train.learning_rate(epoch, args, num_ranks=4) for epoch in (0, 1, 2, 3)]
    assert rates == pytest.approx([0.1, 0.25 * 0.5, 0.4 * 0.25, 0.4 * 0.125])
    args.warmup_epochs = 0.0
    assert train.learning_rate(0, args, num_ranks=4) == pytest.approx(0.4)
