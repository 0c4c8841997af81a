"""What ``trainyard explain`` shows: the stages of one run, and why each hit or missed its cache."""

from dataclasses import dataclass
from functools import partial

from rich.table import Table
from rich.text import Text

from trainyard.flows.changes import describe_difference
from trainyard.tasks.artifacts.store import ArtifactStore
from trainyard.tasks.caching.explain import explain_stage
from trainyard.tasks.caching.runs import RunName, StageNote, earlier_notes, find_run, list_runs, read_notes
from trainyard.tasks.errors import InvalidInputError
from trainyard.tasks.specs.policy import STAGE_NAMES


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one stage of a run hit or missed.

    Args:
        note: What the run noted of the stage.
        reasons: For people, one a line.
    """

    note: StageNote
    reasons: list[str]


def explain_run(
    store: ArtifactStore, wanted: str | None = None, stage: str | None = None
) -> tuple[RunName, list[Explanation]]:
    """Find a run in a store and explain its stages.

    Args:
        store: Where the run kept its artifacts.
        wanted: The run's id or the beginning of it; the newest run where none is named.
        stage: Only this stage.

    Returns:
        The run, and one explanation a stage, in the pipeline's order.

    Raises:
        InvalidInputError: There is no such run or stage, or more than one such run.
    """
    if stage is not None and stage not in STAGE_NAMES:
        raise InvalidInputError(f"There is no stage {stage!r}: the stages are {', '.join(STAGE_NAMES)}.")
    runs = list_runs(store)
    run = find_run(runs, wanted)
    notes = [note for note in read_notes(store, run) if stage in (None, note.stage)]
    if stage is not None and not notes:
        raise InvalidInputError(f"The run {run.id} did not come to the stage {stage!r}.")
    describe = partial(describe_difference, store)
    return run, [
        Explanation(note, explain_stage(note, earlier_notes(store, runs, run, note.stage), describe)) for note in notes
    ]


def render_explanation(run: RunName, explanations: list[Explanation]) -> Table:
    """Stage, hit or miss, and why."""
    title = f"Pipeline run {run.id}, {run.started:%Y-%m-%d %H:%M:%S} UTC"
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("cache", no_wrap=True)
    table.add_column("why", overflow="fold")
    for explanation in explanations:
        table.add_row(explanation.note.stage, _verdict(explanation.note), Text("\n".join(explanation.reasons)))
    return table


def _verdict(note: StageNote) -> Text:
    if note.status == "cached":
        return Text("hit", style="green")
    return Text("miss" if note.status == "ran" else "miss, unfinished", style="bold")
