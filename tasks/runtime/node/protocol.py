"""Frames between the pipeline's machine and a node's agent: one line of JSON, then as many bytes as it says.

They travel over the standard input and output of one ssh connection a node, so that everything a node is told or
asked (environment values, file names, arguments) is data that no shell reads and no process list shows.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

HELLO = b"\0trainyard node agent\n"
"""What an agent says first; a login shell may have said something before."""

CHUNK_BYTES = 1 << 20
ALIVE_INTERVAL_S = 2.0
"""Seconds between two signs of life, in both directions."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    head: dict[str, Any]
    """What is said."""

    payload: bytes = b""
    """The bytes that go with it, of a file for example."""


class Channel:
    """Frames over a pair of byte streams; several threads may send.

    Args:
        source: Where the other side's frames arrive.
        sink: Where ours go.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()

    def send(self, head: dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame.

        Raises:
            OSError: The other side is gone.
        """
        line = json.dumps({**head, "size": len(payload)}).encode() + b"\n"
        with self._lock:
            self._sink.write(line)
            self._sink.write(payload)
            self._sink.flush()

    def frames(self) -> Iterator[Frame]:
        """The other side's frames, to the end of the stream."""
        while line := self._source.readline():
            try:
                head = json.loads(line)
                size = head.pop("size")
            except (ValueError, KeyError, AttributeError):
                return  # a line cut short, by the end of the connection
            payload = self._source.read(size) if size else b""
            if len(payload) < size:
                return
            yield Frame(head, payload)
