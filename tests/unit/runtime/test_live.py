import json
from pathlib import Path

import pytest

from trainyard.tasks.runtime.live import MetricsTail, format_value, progress_line


def line(name: str, value: float | str, step: int | None = None) -> bytes:
    return json.dumps({"kind": "scalar", "name": name, "value": value, "step": step, "time": 1.0}).encode() + b"\n"


def append(directory: Path, rank: int, data: bytes) -> None:
    directory.mkdir(exist_ok=True)
    with (directory / f"rank-{rank:05d}.jsonl").open("ab") as stream:
        stream.write(data)


def test_follows_files_that_appear_and_grow(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    tail = MetricsTail(directory)
    assert tail.poll() is False

    append(directory, 0, b'{"kind": "rank", "rank": 0}\n')
    assert tail.poll() is False
    append(directory, 0, line("epoch", 1, 1) + line("loss", 0.5, 1))
    assert tail.poll() is True
    assert tail.poll() is False
    append(directory, 1, line("samples_per_second", 100.0, 1))
    append(directory, 0, line("samples_per_second", 150.0, 1) + line("loss", 0.25, 2) + line("epoch", 2, 2))
    assert tail.poll() is True

    assert progress_line(tail.latest) == "epoch 2 · loss 0.250 · 250 samples/s (2 ranks)"
    loss = tail.latest.of_first_rank("loss")
    assert loss is not None and (loss.value, loss.step, loss.position) == (0.25, 2, 1)


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    whole = line("loss", 0.5, 7)
    append(tmp_path, 0, whole[:20])
    assert tail.poll() is False
    append(tmp_path, 0, whole[20:])
    assert tail.poll() is True
    assert progress_line(tail.latest) == "step 7 · loss 0.500"


@pytest.mark.parametrize(
    "bad", [b"not json\n", b"[1]\n", b'{"kind": "scalar"}\n', line("loss", "high"), line("loss", 10**309), b"\xff\n"]
)
def test_a_file_of_something_else_does_not_stop_the_others(tmp_path: Path, bad: bytes) -> None:
    append(tmp_path, 0, bad + line("loss", 1.0))
    append(tmp_path, 1, line("loss", 2.0))
    tail = MetricsTail(tmp_path)
    assert tail.poll() is True
    assert tail.poll() is False
    assert progress_line(tail.latest) == "loss 2"


def test_progress_is_a_fraction(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    assert tail.latest.progress is None
    append(tmp_path, 0, line("progress", 0.25))
    tail.poll()
    assert tail.latest.progress == 0.25
    append(tmp_path, 0, line("progress", 1.5))
    tail.poll()
    assert tail.latest.progress == 1.0
    assert progress_line(tail.latest) == ""


def test_a_long_line_is_cut_to_the_first_metrics(tmp_path: Path) -> None:
    append(tmp_path, 0, b"".join(line(name, 1) for name in "abcdef") + line("samples_per_second", 5210.4))
    tail = MetricsTail(tmp_path)
    tail.poll()
    assert progress_line(tail.latest) == "a 1 · b 1 · c 1 · d 1 · 5,210 samples/s (1 rank)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9568, "0.957"),
        (3.0, "3"),
        (12345.0, "12,345"),
        (2e-4, "0.0002"),
        (0.0, "0"),
        (123456.7, "123,456.7"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_values_in_few_characters(value: float, text: str) -> None:
    assert format_value(value) == text
