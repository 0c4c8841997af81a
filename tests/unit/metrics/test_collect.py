import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.errors import ArtifactDamagedError, MetricsError
from trainyard.tasks.metrics.collect import collect_metrics, read_plots, read_report
from trainyard.tasks.metrics.reading import read_rank
from trainyard.tasks.metrics.report import build_report
from trainyard.tasks.runtime.ranks import Rank
from trainyard.tasks.runtime.run import Run, _record_appender


def start_run(directory: Path, rank: int = 0, world_size: int = 1) -> Run:
    place = Rank(rank, rank, world_size, launched_by_mpi=False, host=f"node{rank}")
    return Run("run", place, _record_appender(directory, place), directory / "outputs")


def store_records(directory: Path, context: StageContext) -> ArtifactRef:
    directory.mkdir(exist_ok=True)
    return context.store.put_tree(directory)


def test_two_ranks_become_one_report(tmp_path: Path, context: StageContext) -> None:
    directory = tmp_path / "metrics"
    first, second = (start_run(directory, rank, world_size=2) for rank in range(2))
    for epoch in (1, 2, 3):
        first.log("samples_per_second", 100 * epoch, step=epoch)
        second.log("samples_per_second", 10 * epoch, step=epoch)
        first.log("train/loss", 1 / epoch, step=epoch)
        first.log("test/loss", 2 / epoch, step=epoch)
        first.log("accuracy", 0.3 * epoch, step=epoch)
    second.log("accuracy", 0.0)
    first.log_device({"device": "cuda:1", "model": "NVIDIA H200", "num_threads": 4})
    first.tag("best")
    first.log_row("classes", digit=1, recall=0.5)
    second.log_table("classes", {"digit": [2, 3], "recall": [0.25, 0.75]})
    first.log_list("scores", [1, 2])

    metrics = collect_metrics(store_records(directory, context), context)
    report = read_report(metrics, context.store)

    expected = {"samples_per_second": 300, "train/loss": 1 / 3, "test/loss": 2 / 3, "accuracy": 0.3 * 3}
    assert metrics.finals == report.finals == expected
    assert report.world_size == 2
    assert [(rank.rank, rank.host, rank.samples_per_second) for rank in report.ranks] == [
        (0, "node0", 200),
        (1, "node1", 20),
    ]
    assert [(rank.device, rank.device_model, rank.num_threads, rank.num_records) for rank in report.ranks] == [
        ("cuda:1", "NVIDIA H200", 4, 15),
        (None, None, None, 5),
    ]
    assert report.samples_per_second == 220
    loss = next(series for series in report.series if series.name == "train/loss")
    assert loss.steps == (1, 2, 3) and loss.values == (1, 1 / 2, 1 / 3)
    assert list(loss.times_s) == sorted(loss.times_s) and loss.times_s[0] >= 0
    assert [row["digit"] for row in report.tables[0].rows] == [1, 2, 3]
    assert report.tags == {"best": None}
    assert [(value.kind, value.value) for value in report.values] == [("list", [1, 2])]
    assert report.notes == ()
    assert list(read_plots(metrics, context.store)) == [
        "01-loss.svg",
        "02-accuracy.svg",
        "03-samples_per_second.svg",
    ]


def test_the_same_records_give_the_same_product(tmp_path: Path, context: StageContext) -> None:
    run = start_run(tmp_path / "metrics")
    for value in (0.5, 0.25):
        run.log("loss", value)
    records = store_records(tmp_path / "metrics", context)
    first = collect_metrics(records, context)
    # In another process too: nothing may depend on its hash seed or on the clock.
    script = (
        "import sys; from trainyard.tasks.caching.stage import StageContext\n"
        "from trainyard.tasks.artifacts.references import ArtifactRef\n"
        "from trainyard.tasks.metrics.collect import collect_metrics\n"
        "records, context = ArtifactRef.model_validate_json(sys.argv[1]), sys.argv[2]\n"
        "print(collect_metrics(records, StageContext.model_validate_json(context)).model_dump_json())\n"
    )
    arguments = [records.model_dump_json(), context.model_dump_json()]
    command = [sys.executable, "-c", script, *arguments]
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout.strip() == first.model_dump_json()


def test_a_run_that_logged_nothing_is_reported(tmp_path: Path, context: StageContext) -> None:
    metrics = collect_metrics(store_records(tmp_path / "metrics", context), context)
    report = read_report(metrics, context.store)
    assert metrics.finals == {} and report.ranks == () and report.world_size == 0
    assert read_plots(metrics, context.store) == {}
    assert "logged no metrics" in report.notes[0]


def test_a_diverged_run_keeps_its_nan(tmp_path: Path, context: StageContext) -> None:
    run = start_run(tmp_path / "metrics")
    for value in (1.0, math.inf, math.nan):
        run.log("loss", value)
    metrics = collect_metrics(store_records(tmp_path / "metrics", context), context)
    values = read_report(metrics, context.store).series[0].values
    assert values[:2] == (1.0, math.inf) and math.isnan(values[2])
    assert math.isnan(metrics.finals["loss"])
    data = context.store.read_bytes(metrics.report).decode()

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(data, parse_constant=refuse)


def test_missing_ranks_and_cut_files_are_noted(tmp_path: Path, context: StageContext) -> None:
    directory = tmp_path / "metrics"
    start_run(directory, rank=1, world_size=4).log("loss", 1.0)
    with (directory / "rank-00001.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "scalar", "name": "lo')
    report = read_report(
        collect_metrics(store_records(directory, context), context),
        context.store,
    )
    assert report.world_size == 4 and report.finals == {}
    assert report.notes == (
        "1 of 4 ranks left records.",
        "Rank 1 was stopped while writing: its last record is cut and left out.",
    )


@pytest.mark.parametrize(
    "bad",
    [
        "loss 0.5",
        "[1, 2]",
        '{"name": "loss"}',
        '{"kind": "scalar", "name": "loss", "value": "high", "time": 1.0}',
        '{"kind": "scalar", "name": "loss", "value": null, "time": 1.0}',
        '{"kind": "scalar", "name": "loss", "value": 1.0}',
        '{"kind": "scalar", "name": 3, "value": 1.0, "time": 1.0}',
        '{"kind": "scalar", "name": "loss", "value": 1.0, "step": "3", "time": 1.0}',
        '{"kind": "table", "name": "t", "value": {"a": [1], "b": []}, "time": 1.0}',
        '{"kind": "table", "name": "t", "value": {"a": 1}, "time": 1.0}',
        '{"kind": "table", "name": "t", "value": {"a": "ab", "b": [1, 2]}, "time": 1.0}',
        '{"kind": "confusion_matrix", "name": "c", "value": [[1]], "time": 1.0}',
        '{"kind": "scalar", "name": "loss", "value": 1' + 309 * "0" + ', "time": 1.0}',
        '{"kind": "scalar", "name": "loss", "value": 1, "time": 1.0, "step": 1' + 309 * "0" + "}",
        '{"kind": "video", "name": "loss", "value": 1.0, "time": 1.0}',
        "\\xff",
    ],
)
def test_a_malformed_record_is_named_by_file_and_line(tmp_path: Path, context: StageContext, bad: str) -> None:
    directory = tmp_path / "metrics"
    start_run(directory, rank=1).log("loss", 1.0)
    with (directory / "rank-00001.jsonl").open("ab") as stream:
        stream.write(bad.encode() + b"\n")
    with pytest.raises(MetricsError, match=r"rank-00001\.jsonl, line 3 is not a record"):
        collect_metrics(store_records(directory, context), context)


def test_damaged_records_are_worth_another_attempt(tmp_path: Path, context: StageContext) -> None:
    start_run(tmp_path / "metrics").log("loss", 1.0)
    records = store_records(tmp_path / "metrics", context)
    (entry,) = context.store.list_tree(records).entries
    (tmp_path / "store" / "objects" / entry.sha256[:2] / entry.sha256).unlink()
    with pytest.raises(ArtifactDamagedError):
        collect_metrics(records, context)


def test_throughput_is_not_summed_where_a_rank_is_silent(tmp_path: Path) -> None:
    start_run(tmp_path, 0, 2).log("samples_per_second", 100)
    start_run(tmp_path, 1, 2).log("loss", 1)
    ranks = [read_rank(path.name, path.read_bytes()) for path in sorted(tmp_path.glob("*.jsonl"))]
    assert build_report(ranks).samples_per_second is None


scalars = st.fixed_dictionaries(
    {
        "kind": st.just("scalar"),
        "name": st.sampled_from(["loss", "accuracy", "test/loss"]),
        "value": st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just("Infinity"),
        "step": st.none() | st.integers(0, 10**6),
        "time": st.floats(1e9, 2e9),
    }
)


@given(st.lists(st.lists(scalars, max_size=20), max_size=4))
def test_nothing_logged_is_lost(ranks: list[list[dict[str, Any]]]) -> None:
    files = [b"".join(json.dumps(record).encode() + b"\n" for record in records) for records in ranks]
    report = build_report([read_rank(f"rank-{rank:05d}.jsonl", data) for rank, data in enumerate(files)])
    for rank, records in enumerate(ranks):
        for name in {record["name"] for record in records}:
            logged = [float(record["value"]) for record in records if record["name"] == name]
            (series,) = (s for s in report.series if (s.name, s.rank) == (name, rank))
            assert list(series.values) == logged
            assert rank > 0 or report.finals[name] == logged[-1]
    assert type(report).model_validate_json(report.model_dump_json()) == report
