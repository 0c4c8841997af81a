import io

from rich.console import Console

from trainyard.tasks.staging.bar import TerminalBar
from trainyard.tasks.staging.progress import ProgressMeter, StagingProgress


def progress(**changes):
    values = {
        "num_objects": 3,
        "total_objects": 10,
        "num_reused": 1,
        "transferred_bytes": 250_000_000,
        "missing_bytes": 1_000_000_000,
        "seconds": 100.0,
    }
    return StagingProgress(**{**values, **changes})


def test_a_line_tells_objects_bytes_rate_and_time_left():
    assert str(progress()) == (
        "3 of 10 objects, 1 of them unchanged; 250.0 of 1,000.0 MB transferred, 2.5 MB/s, 5:00 left"
    )
    assert str(progress(missing_bytes=20_000_000_000)).endswith("2:11:40 left")
    assert "left" not in str(progress(transferred_bytes=0))


def test_the_fraction_is_that_of_bytes_or_of_objects():
    assert progress().fraction == 0.25
    assert progress(missing_bytes=0, transferred_bytes=0).fraction == 0.3
    assert progress(transferred_bytes=2_000_000_000).fraction == 1.0


def test_a_meter_counts_what_is_missing():
    meter = ProgressMeter(2, None, 1.0)
    meter.expect_bytes(10)
    meter.add_bytes(4)
    meter.add_reused(1)
    read = meter.read()
    assert (read.missing_bytes, read.transferred_bytes, read.num_objects, read.num_reused) == (10, 4, 1, 1)


def test_a_terminal_shows_a_bar_and_a_file_does_not(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb one cannot
    shown, file = io.StringIO(), io.StringIO()
    for console in (Console(file=shown, force_terminal=True, width=200), Console(file=file)):
        bar = TerminalBar(console)
        bar.show(progress())
        bar.close()
    assert "25%" in shown.getvalue()
    assert "3 of 10 objects" in shown.getvalue()
    assert file.getvalue() == ""
