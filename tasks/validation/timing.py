"""Time calls one by one."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Timing(NamedTuple):
    """How many calls are timed.

    Args:
        warmup: Calls that do not count.
        least: Calls at least.
        most: Calls at most.
        seconds: No more calls once they took this long together.
    """

    warmup: int = 5
    least: int = 5
    most: int = 100
    seconds: float = 2.0


def time_calls(call: Callable[[], object], timing: Timing) -> list[float]:
    """Milliseconds of each call that counts."""
    for _ in range(timing.warmup):
        call()
    times: list[float] = []
    while len(times) < timing.least or (len(times) < timing.most and sum(times) < timing.seconds * 1000):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return times
