"""Collect metrics: from the ranks' records to a report and plots in the store."""

import logging
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from trainyard.tasks.artifacts.products import CollectedMetrics
from trainyard.tasks.artifacts.references import ArtifactRef
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.stage import StageContext
from trainyard.tasks.metrics.plots import Plot, draw, plan_plots
from trainyard.tasks.metrics.reading import read_ranks
from trainyard.tasks.metrics.report import MetricsReport, build_report
from trainyard.tasks.metrics.tracked import add_tracked
from trainyard.tasks.runtime.scratch import scratch_prefix

log = logging.getLogger(__name__)


def collect_metrics(records: ArtifactRef, context: StageContext) -> CollectedMetrics:
    """Turn the ranks' records into a report, plots and final values.

    No records at all are no error: the report says so.

    Args:
        records: Tree of one file a rank, and of what other libraries logged in folders beside them.
        context: Where the store is.

    Raises:
        MetricsError: A record cannot be read; names the file and the line.
        ArtifactDamagedError: The records are missing from the store or damaged.
    """
    store = context.store
    with tempfile.TemporaryDirectory(prefix=scratch_prefix("metrics")) as scratch:
        directory = store.materialize(records, Path(scratch) / "records")
        tracked = add_tracked(read_ranks(directory), directory)
        for note in tracked.notes:
            log.warning("%s", note)
        report = build_report(tracked.ranks)
        plots, notes = plan_plots(report.series)
        report = report.model_copy(update={"notes": (*report.notes, *tracked.notes, *notes)})
        return CollectedMetrics(
            report=store.put_bytes(report.model_dump_json(indent=1).encode()),
            plots=_put_plots(plots, store, Path(scratch) / "plots"),
            finals=report.finals,
        )


def read_report(metrics: CollectedMetrics, store: ArtifactStore) -> MetricsReport:
    """The report of collected metrics; raises ``ArtifactDamagedError`` where it is not whole."""
    return MetricsReport.model_validate_json(store.read_bytes(metrics.report))


def read_plots(metrics: CollectedMetrics, store: ArtifactStore) -> dict[str, bytes]:
    """File name to SVG, in the order in which they were drawn; raises as ``read_report`` does."""
    paths = [entry.path for entry in store.list_tree(metrics.plots).entries]
    return {path: store.read_entry(metrics.plots, path) for path in paths}


def _put_plots(plots: Iterable[Plot], store: ArtifactStore, directory: Path) -> ArtifactRef:
    """Draw the plots; their names are numbered, so that sorting keeps their order."""
    directory.mkdir()
    for number, plot in enumerate(plots, 1):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plot.family).strip("-.") or "metric"
        (directory / f"{number:02d}-{name}.svg").write_bytes(draw(plot))
    return store.put_tree(directory)
