import io
import os
import re
import time
from contextlib import closing

import pytest
from rich.console import Console

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.bar import TerminalBar, _texts
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.index import StagingIndex
from trainyard.tasks.staging.listing import list_reference
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


def test_the_rate_is_that_of_the_time_in_which_bytes_are_transferred(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = ProgressMeter(2, None, 1.0)
    meter.expect_bytes(300)
    for waited_s, spent_s in ((60.0, 5.0), (600.0, 5.0)):
        now[0] += waited_s  # for another run, or while files are looked at
        with meter.transferring():
            now[0] += spent_s / 2
            meter.add_bytes(100)
            now[0] += spent_s / 2
            assert meter.read().seconds in (5.0, 10.0)
    read = meter.read()
    assert (read.seconds, read.bytes_per_second, read.seconds_left) == (10.0, 20.0, 5.0)


def test_two_datasets_are_one_progress(context, tmp_path, monkeypatch):
    monkeypatch.setattr(ProgressMeter, "tick", lambda meter: meter.report(meter.read()))
    monkeypatch.setattr(Location, "share_version", lambda self, info, target: None)
    references = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for n in range(3):
            (tmp_path / name / f"{n}.bin").write_bytes(os.urandom(100_000))
        references.append(Datastore(url=str(tmp_path / name)).as_mount())
    reports = []
    stage_references(references, context, reports.append)
    begun = [report for report in reports if report.transferred_bytes]
    assert {report.missing_bytes for report in begun} == {600_000}
    fractions = [report.fraction for report in begun]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_what_another_run_fetched_meanwhile_is_not_waited_for(context, tmp_path, monkeypatch):
    """Two references to one file: the second finds what the first has fetched."""
    monkeypatch.setattr(Location, "share_version", lambda self, info, target: None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(os.urandom(1000))
    reports = []
    stage_references([Datastore(url=str(tmp_path / "data")).as_mount()] * 2, context, reports.append)
    assert (reports[-1].fraction, reports[-1].missing_bytes, reports[-1].transferred_bytes) == (1.0, 1000, 1000)


def test_who_hashes_again_what_is_there_reports_meanwhile(context, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(os.urandom(5 << 20))
    reference = Datastore(url=str(tmp_path / "data")).as_mount()
    product = stage_references([reference], context)
    (context.home / "objects" / "index.sqlite").unlink()
    ticks = []
    monkeypatch.setattr(ProgressMeter, "tick", lambda meter: ticks.append(meter))
    with closing(StagingIndex(context.home / "objects" / "index.sqlite")) as index:
        [listing] = [list_reference(reference)]
        index.remember_object(listing.source, listing.objects[0], pool_digest(context))
    assert stage_references([reference], context) == product
    assert len(ticks) >= 5


def pool_digest(context):
    [path] = (context.home / "objects").glob("??/*")
    return path.name


PROGRESSES = {
    "begun": progress(num_objects=0, transferred_bytes=0),
    "midway": progress(num_objects=1234, total_objects=100_000, missing_bytes=20_000_000_000, seconds=2.0),
    "long": progress(
        num_objects=100_000,
        total_objects=100_000,
        transferred_bytes=118_300_000_000,
        missing_bytes=120_500_000_000,
        seconds=60_000,
    ),
}


def drawn(width, what):
    """The last line that a terminal of that width is shown."""
    out = io.StringIO()
    bar = TerminalBar(Console(file=out, force_terminal=True, width=width, color_system=None))
    bar.show(what)
    bar._progress.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", out.getvalue()).splitlines()
    bar.close()
    return [line.rstrip() for line in lines if line.strip()][-1]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_objects_bytes_rate_and_time_left_are_shown_in_every_terminal(monkeypatch, width):
    monkeypatch.setenv("TERM", "xterm")  # a dumb one cannot
    line = drawn(width, PROGRESSES["midway"])
    assert line.endswith("1% 1,234/100,000 objects · 0.2/20.0 GB · 125 MB/s · 2:38 left")
    assert drawn(width, PROGRESSES["begun"]).endswith("0% 0/10 objects · 0.0/1.0 GB")
    longest = "98% 100,000/100,000 objects · 118.3/120.5 GB · 2.0 MB/s · 18:36 left"
    assert drawn(width, PROGRESSES["long"]).endswith(longest)
    assert "━" in drawn(width, PROGRESSES["long"])
    assert all(len(drawn(width, what)) <= width for what in PROGRESSES.values())


def test_sizes_are_in_units_that_are_read_easily():
    assert _texts(progress(missing_bytes=4_000, transferred_bytes=500))["size"] == "· 0.5/4.0 kB"
    assert _texts(progress(missing_bytes=4_000_000, transferred_bytes=1_000_000))["size"] == "· 1.0/4.0 MB"
    assert _texts(progress(missing_bytes=4_100_000_000_000))["size"] == "· 0.0/4.1 TB"
    assert _texts(progress(missing_bytes=0, transferred_bytes=0))["size"] == ""


def test_a_terminal_shows_a_bar_and_a_file_does_not(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb one cannot
    shown, file = io.StringIO(), io.StringIO()
    for console in (Console(file=shown, force_terminal=True, width=200), Console(file=file)):
        bar = TerminalBar(console)
        bar.show(progress())
        bar.close()
    assert "25%" in shown.getvalue()
    assert "3/10 objects" in shown.getvalue()
    assert file.getvalue() == ""
