"""Ranks' logs as they are written: new lines, each with its rank, as a terminal would show them in the end."""

import re
from collections.abc import Iterator
from pathlib import Path

MAX_LINE_BYTES = 16_384
_BYTES_FOR_LAST_LINES = 65_536
_TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor moves (ECMA-48, section 5.4)


class LogTail:
    """Follows every ``*.log`` file of a directory.

    Args:
        directory: Where the ranks' logs appear.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}

    def poll(self, *, final: bool = False) -> Iterator[tuple[str, str]]:
        """New complete lines since the last call.

        Args:
            final: Also give a last line without a newline.

        Returns:
            Pairs of a label (``rank 0``) and a line.
        """
        for path in sorted(self._directory.glob("rank-*.log")):
            label = f"rank {int(path.stem.removeprefix('rank-'))}"
            yield from ((label, line) for line in self._new_lines(path, final))

    def _new_lines(self, path: Path, final: bool) -> list[str]:
        offset = self._offsets.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
        end = data.rfind(b"\n") + 1
        if final or len(data) - end > MAX_LINE_BYTES:
            end = len(data)
        self._offsets[path] = offset + end
        return _lines(data[:end])


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log; none where there is no such file."""
    if not path.exists():
        return []
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _BYTES_FOR_LAST_LINES))
        return _lines(stream.read())[-count:]


def _lines(data: bytes) -> list[str]:
    """Lines of a log; of a progress bar, which draws a line over and over, what it shows in the end."""
    text = _TERMINAL_CODES.sub("", data.decode(errors="replace"))
    drawn = ([part for part in line.split("\r") if part.strip()] for line in text.removesuffix("\n").split("\n"))
    return [parts[-1].rstrip() if parts else "" for parts in drawn] if text else []
