"""A progress bar in the terminal, where there is one."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from trainyard.tasks.staging.progress import StagingProgress


class TerminalBar:
    """Shows a staging as a bar that is gone at its end; nothing where the output is no terminal.

    Args:
        console: Where to show it; the standard error by default, so that output for programs stays clean.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (TextColumn("Staging"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0)

    def show(self, progress: StagingProgress) -> None:
        """Draw how far it is."""
        self._progress.start()
        self._progress.update(self._task, completed=progress.fraction, description=str(progress))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()
