"""Read the blocks of one large object some at once, and give them in their order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

Block = bytes | memoryview
"""Some bytes of an object."""

NUM_AHEAD = 4
"""Most blocks that one object is read ahead."""

TOTAL_AHEAD = 12
"""Most blocks that all objects of this process together are read ahead: what bounds the memory of many readers."""

_free_slots = threading.BoundedSemaphore(TOTAL_AHEAD)


def read_ahead(starts: Iterable[int], read: Callable[[int], Block]) -> Iterator[Block]:
    """Give ``read(start)`` for each start, in their order.

    Beside the block that is waited for, up to ``NUM_AHEAD`` more are read by threads, as long as the process has
    slots for them. The first error is raised in its place; what is under way then is awaited and forgotten.

    Args:
        starts: Where each block begins.
        read: Reads one block; called from several threads.
    """
    waiting = iter(starts)
    pending: deque[Future[Block]] = deque()  # every one after the first has a slot
    with ThreadPoolExecutor(NUM_AHEAD + 1, thread_name_prefix="read-ahead") as executor:
        try:
            for start in waiting:
                pending.append(executor.submit(read, start))
                while pending:
                    _fill(pending, waiting, executor, read)
                    block = pending[0].result()
                    _drop_first(pending)
                    yield block
                    del block  # not kept while the next one is waited for
        finally:
            for future in pending:
                future.cancel()
            while pending:
                _drop_first(pending)


def _drop_first(pending: "deque[Future[Block]]") -> None:
    pending.popleft()
    if pending:
        _free_slots.release()  # of the one that is first now


def _fill(
    pending: "deque[Future[Block]]",
    waiting: Iterator[int],
    executor: ThreadPoolExecutor,
    read: Callable[[int], Block],
) -> None:
    while len(pending) <= NUM_AHEAD and _free_slots.acquire(blocking=False):
        start = next(waiting, None)
        if start is None:
            _free_slots.release()
            return
        pending.append(executor.submit(read, start))
