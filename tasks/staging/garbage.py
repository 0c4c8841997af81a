"""Python's garbage collector, while thousands of values are made that all stay: it would look at them again and again.

The values of a listing are in no cycles, and counting references frees them. The collector finds nothing among them,
and on a full pass it looks at every module that was imported, too.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 100_000
"""Values made, and not freed, before the collector looks at those; Python's own choice is some hundred."""
_lock = threading.Lock()
_num_holders = 0
_thresholds = gc.get_threshold()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Let the garbage collector run rarely, in the whole process, until the last block of this kind has ended.

    Rarely, and not never: what others leave in cycles meanwhile stays bounded. A process whose collector runs more
    rarely still, or not at all, is left as it is.
    """
    _change_holders(+1)
    try:
        yield
    finally:
        _change_holders(-1)


def _change_holders(step: int) -> None:
    global _num_holders, _thresholds
    with _lock:
        if not _num_holders:
            _thresholds = gc.get_threshold()
        _num_holders += step
        if 0 < _thresholds[0] < _MANY:
            gc.set_threshold(_MANY if _num_holders else _thresholds[0], *_thresholds[1:])
