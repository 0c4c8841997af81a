"""Showing how far training is must never end it."""

from prefect.settings import PREFECT_API_URL, temporary_settings

from trainyard.tasks.runtime.live import LatestMetrics, Sample
from trainyard.tasks.training.task import _ProgressReporter


def test_a_prefect_server_that_is_gone_is_told_once_and_nothing_else(caplog, recwarn):
    reporter = _ProgressReporter()
    latest = LatestMetrics({"progress": {0: Sample(0.5, None, 1.0)}})
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        reporter(latest)
        reporter(latest)
        reporter.finish()
    assert caplog.text.count("progress is not shown in Prefect") == 1
