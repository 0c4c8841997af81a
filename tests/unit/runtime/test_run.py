import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainyard.tasks.runtime.ranks import Rank
from trainyard.tasks.runtime.run import Run


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new_run(directory: Path, **variables: str) -> Run:
    """A run as another process would get it."""
    return Run._from_environment({"TRAINYARD_METRICS_DIR": str(directory / "metrics"), **variables})


def records(directory: Path, rank: int = 0) -> list[dict[str, Any]]:
    lines = (directory / "metrics" / f"rank-{rank:05d}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_first_record_describes_the_rank(directory: Path) -> None:
    run = new_run(
        directory,
        OMPI_COMM_WORLD_RANK="3",
        OMPI_COMM_WORLD_LOCAL_RANK="1",
        OMPI_COMM_WORLD_SIZE="4",
        TRAINYARD_RUN_ID="run-7",
    )
    assert run.id == "run-7" and run.rank == 3
    (first,) = records(directory, rank=3)
    assert first["kind"] == "rank" and first["pid"] == os.getpid()
    assert (first["rank"], first["local_rank"], first["world_size"]) == (3, 1, 4)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1, 1),
        (True, 1),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.array([2.0]), 2.0),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([0.25], requires_grad=True), 0.25),
        (math.nan, "NaN"),
        (np.float64("inf"), "Infinity"),
        (torch.tensor(-math.inf), "-Infinity"),
    ],
)
def test_numbers_of_every_kind_survive(directory: Path, value: Any, written: Any) -> None:
    new_run(directory).log("loss", value, step=2)
    record = records(directory)[1]
    assert (record["kind"], record["name"], record["value"], record["step"]) == ("scalar", "loss", written, 2)
    assert str(float(record["value"])) == str(float(value.item() if hasattr(value, "item") else value))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (10**400, "Infinity"),
        (-(10**5000), "-Infinity"),  # more digits than Python writes
        (Fraction(10**400), "Infinity"),
        (10**300, 10**300),
    ],
    ids=["large", "negative", "fraction", "fitting"],
)
def test_a_number_that_no_float_holds_is_an_infinity(directory: Path, value: Any, written: Any) -> None:
    run = new_run(directory)
    run.log("big", value)
    run.log_list("bigs", [value])
    assert [record["value"] for record in records(directory)[1:]] == [written, [written]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 3}, r"got 3 for 'a'; one row of single values goes to log_row\(\)"),
        ({"a": [1, 2], "b": "xy"}, "got 'xy' for 'b'"),
        ({"a": {"x": 1}}, "got {'x': 1} for 'a'"),
        ({"a": np.float32(0.5)}, "for 'a'"),
        ([1, 2], "got list"),
    ],
)
def test_a_table_without_columns_is_refused(directory: Path, value: Any, words: str) -> None:
    run = new_run(directory)
    with pytest.raises(TypeError, match=rf"log_table\('t'\): expected a dictionary of columns.*{words}"):
        run.log_table("t", value)
    assert len(records(directory)) == 1


def test_columns_of_every_kind_survive(directory: Path) -> None:
    columns = {"list": [1, 2], "tuple": (1, 2), "array": np.array([1, 2]), "range": range(1, 3), "text": ["x", "y"]}
    new_run(directory).log_table("t", columns)
    assert records(directory)[1]["value"] == {**{column: [1, 2] for column in columns}, "text": ["x", "y"]}


@pytest.mark.parametrize("value", ["high", None, [1, 2]])
def test_what_is_no_number_is_refused(directory: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"log\('loss'\): expected a number"):
        new_run(directory).log("loss", value)


def test_rows_tables_lists_and_tags(directory: Path) -> None:
    run = new_run(directory)
    run.log_list("scores", np.array([0.5, math.nan]))
    run.log_row("classes", digit=np.int64(3), recall=0.9)
    run.log_table("classes", {"digit": [1, 2], "recall": torch.tensor([0.5, 1.0])})
    run.tag("dataset", "digits")
    run.tag("best")
    assert [(r["kind"], r["name"], r["value"]) for r in records(directory)[1:]] == [
        ("list", "scores", [0.5, "NaN"]),
        ("row", "classes", {"digit": 3, "recall": 0.9}),
        ("table", "classes", {"digit": [1, 2], "recall": [0.5, 1.0]}),
        ("tag", "dataset", "digits"),
        ("tag", "best", None),
    ]


def test_a_ragged_table_is_refused(directory: Path) -> None:
    with pytest.raises(ValueError, match=r"'a': 1, 'b': 2"):
        new_run(directory).log_table("t", {"a": [1], "b": [1, 2]})


def test_confusion_matrices_as_arrays_and_as_the_old_json(directory: Path) -> None:
    run = new_run(directory)
    run.log_confusion_matrix("digits", np.array([[3, 1], [0, 2]]))
    old = {
        "schema_type": "confusion_matrix",
        "schema_version": "v1",
        "data": {"class_labels": ["a", "b"], "matrix": [[3, 1], [0, 2]]},
    }
    run.log_confusion_matrix("digits", old)
    matrix = [[3, 1], [0, 2]]
    values = [record["value"] for record in records(directory)[1:]]
    assert values == [
        {"class_labels": [0, 1], "matrix": matrix},
        {"class_labels": ["a", "b"], "matrix": matrix},
    ]
    with pytest.raises(ValueError, match="square"):
        run.log_confusion_matrix("digits", [[1, 2]])


def test_images_are_kept_below_outputs(directory: Path) -> None:
    from matplotlib.figure import Figure

    (directory / "picture.jpg").write_bytes(b"jpg")
    run = new_run(directory)
    run.log_image("weights/first layer", path="picture.jpg")
    run.log_image("curve", plot=Figure())
    run.log_image("curve", plot=Figure())
    new_run(directory, RANK="1").log_image("../curve", plot=Figure())

    kept = sorted(path.relative_to(directory).as_posix() for path in (directory / "outputs").rglob("*.*"))
    assert kept == [
        "outputs/images/-curve-rank-1.png",
        "outputs/images/curve-2.png",
        "outputs/images/curve.png",
        "outputs/images/weights-first-layer.jpg",
    ]
    assert (directory / "outputs/images/curve.png").read_bytes().startswith(b"\x89PNG")
    assert records(directory)[1]["value"] == "images/weights-first-layer.jpg"
    with pytest.raises(ValueError, match=r"either path=\.\.\. or plot"):
        run.log_image("nothing")


def test_uploaded_files_stay_below_outputs(directory: Path) -> None:
    (directory / "vocabulary.txt").write_text("a b c")
    run = new_run(directory)
    run.upload_file("outputs/texts/vocabulary.txt", "vocabulary.txt")
    run.upload_file("same.txt", "vocabulary.txt")
    run.upload_file("same.txt", directory / "outputs" / "same.txt")
    assert (directory / "outputs/texts/vocabulary.txt").read_text() == "a b c"
    assert (directory / "outputs/same.txt").read_text() == "a b c"
    for name in ("../escape.txt", "/etc/escape.txt", "outputs/../../escape.txt", "", "outputs"):
        with pytest.raises(ValueError, match="below outputs/"):
            run.upload_file(name, "vocabulary.txt")
    with pytest.raises(FileNotFoundError):
        run.upload_file("missing.txt", "missing.txt")
    assert sorted(path.name for path in (directory / "outputs").iterdir()) == ["same.txt", "texts"]


def test_without_a_pipeline_lines_are_printed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run._from_environment({})
    run.log("loss", 0.123456789, step=3)
    run.log_row("classes", digit=3)
    Run._from_environment({"RANK": "1", "WORLD_SIZE": "2"}).log("loss", 1)
    assert capsys.readouterr().out.splitlines() == [
        "loss = 0.123457 (step 3)",
        "row classes = {'digit': 3}",
        "[rank 1] loss = 1",
    ]
    assert run.id == "offline"
    assert list(directory.iterdir()) == []


def test_ranks_from_the_launchers_variables() -> None:
    assert Rank.from_environment({}).world_size == 1
    torchrun = Rank.from_environment({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "3"})
    assert (torchrun.rank, torchrun.local_rank, torchrun.world_size) == (2, 0, 3)


def test_one_context_a_process_and_light_imports(directory: Path) -> None:
    script = (
        "import sys; from trainyard import Run\n"
        "assert Run.get_context() is Run.get_context()\n"
        "Run.get_context().log('loss', 1.5)\n"
        "heavy = {'prefect', 'pydantic', 'torch', 'numpy', 'matplotlib', 'fsspec'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    variables = os.environ | {"TRAINYARD_METRICS_DIR": str(directory / "metrics")}
    subprocess.run([sys.executable, "-c", script], env=variables, check=True)
    assert [record["kind"] for record in records(directory)] == ["rank", "scalar"]
