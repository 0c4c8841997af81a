"""Showing how far training is must never end it."""

import json

from prefect.settings import PREFECT_API_URL, temporary_settings

from trainyard.tasks.runtime.live import MetricsTail
from trainyard.tasks.training.task import _ProgressReporter


def test_a_prefect_server_that_is_gone_is_told_and_nothing_else(tmp_path, caplog, recwarn):
    record = {"kind": "scalar", "name": "progress", "value": 0.5, "time": 1.0}
    (tmp_path / "rank-00000.jsonl").write_text(json.dumps(record) + "\n")
    tail = MetricsTail(tmp_path)
    tail.poll()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        _ProgressReporter()(tail)
    assert "progress is not shown in Prefect" in caplog.text
