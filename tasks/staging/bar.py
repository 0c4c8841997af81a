"""A progress bar in the terminal, where there is one."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn
from rich.table import Column

from trainyard.tasks.staging.progress import StagingProgress, duration

_FIELDS = ("objects", "size", "rate", "left")
_WIDE = 100
"""From so many characters on there is room to say what the bar is of."""
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (0.0, "kB"))


class TerminalBar:
    """Shows a staging as a bar that is gone at its end; nothing where the output is no terminal.

    Where the terminal is narrow, the bar is what gives way.

    Args:
        console: Where to show it; the standard error by default, so that output for programs stays clean.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        texts = [TextColumn(f"{{task.fields[texts][{name}]}}", table_column=Column(no_wrap=True)) for name in _FIELDS]
        title: list[ProgressColumn] = [TextColumn("Staging")] if console.width >= _WIDE else []
        columns = (*title, BarColumn(bar_width=None, table_column=Column(ratio=1)), TaskProgressColumn(), *texts)
        self._progress = Progress(
            *columns, console=console, transient=True, expand=True, disable=not console.is_terminal
        )
        self._task = self._progress.add_task("", total=1.0, texts=dict.fromkeys(_FIELDS, ""))

    def show(self, progress: StagingProgress) -> None:
        """Draw how far it is."""
        self._progress.start()
        self._progress.update(self._task, completed=progress.fraction, texts=_texts(progress))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def _texts(progress: StagingProgress) -> dict[str, str]:
    """What the columns say; those of bytes nothing where there are none to transfer."""
    done, total = progress.num_objects, progress.total_objects
    texts = {"objects": f"{done:,}/{total:,} objects", "size": "", "rate": "", "left": ""}
    if progress.missing_bytes:
        scale, unit = next((scale, unit) for scale, unit in _UNITS if progress.missing_bytes >= scale)
        scale = scale or 1e3
        transferred, missing = progress.transferred_bytes / scale, progress.missing_bytes / scale
        texts["size"] = f"· {transferred:,.1f}/{missing:,.1f} {unit}"
    if progress.transferred_bytes:
        rate = progress.bytes_per_second / 1e6
        texts["rate"] = f"· {rate:,.0f} MB/s" if rate >= 10 else f"· {rate:,.1f} MB/s"
    if progress.missing_bytes and progress.seconds_left is not None:
        texts["left"] = f"· {duration(progress.seconds_left)} left"
    return texts
