"""Read the blocks of one large object ahead of who needs them, and give them in their order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

Block = bytes | memoryview
"""Some bytes of an object."""

NUM_AHEAD = 4
"""Most blocks that one object is read ahead."""

TOTAL_AHEAD = 12
"""Most blocks that all objects of this process together are read ahead: what bounds the memory of many readers."""

NUM_TAKEN_AHEAD = 4
"""Most streams of this process that are taken ahead; of more at once, each is received while others are written."""

_free_slots = threading.BoundedSemaphore(TOTAL_AHEAD)
_free_takers = threading.BoundedSemaphore(NUM_TAKEN_AHEAD)


def never() -> bool:
    """Whether nobody waits for a read any more, where whoever asks for it waits to its end."""
    return False


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


def take_ahead(blocks: Iterable[Block], num_ahead: int) -> Iterator[Block]:
    """Give blocks that come one after the other, while a thread takes the next ones.

    Where ``NUM_TAKEN_AHEAD`` streams are taken so, others are given as they come. An error is raised in its place. Who
    stops before the end waits for the block that is under way.

    Args:
        blocks: What is given; gone through in the thread.
        num_ahead: Most blocks that wait, beside the one that was given last.
    """
    if not _free_takers.acquire(blocking=False):
        yield from blocks
        return
    try:
        yield from _take_in_thread(blocks, num_ahead)
    finally:
        _free_takers.release()


def _take_in_thread(blocks: Iterable[Block], num_ahead: int) -> Iterator[Block]:
    arrived: SimpleQueue[Block | BaseException | None] = SimpleQueue()
    free = threading.Semaphore(num_ahead)
    stopped = threading.Event()

    def take() -> None:
        try:
            waiting = iter(blocks)
            while free.acquire() and not stopped.is_set() and (block := next(waiting, None)) is not None:
                arrived.put(block)
                del block  # not kept while there is no room for the next one
        except BaseException as error:
            arrived.put(error)
        else:
            arrived.put(None)

    # Not an executor's thread: the end of Python would wait for it where nobody goes on with these blocks.
    thread = threading.Thread(target=take, name="take-ahead", daemon=True)
    thread.start()
    try:
        while (block := arrived.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            free.release()
            yield block
    finally:
        stopped.set()
        free.release()
        thread.join()


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
