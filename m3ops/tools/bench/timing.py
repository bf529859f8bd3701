"""Timers. Every result is a median, in microseconds by call.

:class:`DeviceTimers` uses PyTorch's events and graphs, on CUDA and HIP alike. JAX gives Python neither its streams nor
events, so :func:`throughput_us` counts on its asynchronous calls: the device works through a queue that the host keeps
filled, so the wall clock of a long batch over its number of calls is the device's time of one, with the few hundred
nanoseconds to two microseconds between kernels that events leave out. It holds while the host can issue a call faster
(about 20 us) than the device runs one. The inputs rotate through more memory than any cache holds.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

Call = Callable[[], Any]

FLUSH_BYTES = 2**30
"""Read between two timed calls: four times the largest cache of a GPU (256 MiB on AMD's MI300 and MI350). Written, it
would leave the cache full of lines that the timed call has to write back: up to 14 us of other work on the H200.
"""


def host_us(call: Call, finish: Callable[[Any], None], calls: int = 300, batches: int = 7) -> float:
    """Wall clock of one call in a loop that waits for the device only at its end."""

    def batch() -> float:
        last = None
        start = perf_counter()
        for _ in range(calls):
            last = call()
        finish(last)
        return (perf_counter() - start) / calls * 1e6

    finish(call())
    batch()
    return statistics.median(batch() for _ in range(batches))


def throughput_us(call: Callable[[int], Any], finish: Callable[[Any], None], in_flight: int = 16) -> float:
    """Device time of one call by the wall clock of batches of at least 30 ms.

    Args:
        call: Starts the call on input set ``i`` and returns its outputs without waiting.
        finish: Waits for outputs.
        in_flight: Calls that may be queued: enough to hide the host, few enough for their outputs to fit in memory.
    """

    def batch(calls: int) -> float:
        queued: deque[Any] = deque(maxlen=in_flight)
        start = perf_counter()
        for i in range(calls):
            if len(queued) == in_flight:
                finish(queued[0])
            queued.append(call(i))
        finish(queued[-1])
        return (perf_counter() - start) / calls * 1e6

    batch(in_flight)
    calls = min(max(math.ceil(30e3 / batch(in_flight)), 2 * in_flight), 2000)
    return statistics.median(batch(calls) for _ in range(7))


class DeviceTimers:
    """Timers of work on PyTorch's current stream."""

    def __init__(self, torch: Any) -> None:
        self._cuda = torch.cuda
        self._flush = torch.zeros(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda").amax
        self._flush_us = self._median([self._between(self._flush) for _ in range(8)])

    def flushed_us(self, call: Call, runs: int = 21) -> float:
        """Time between events around one call, the cache flushed before each.

        The flushes queued ahead of the first run keep the device busy until the host has issued every run, so no
        host time falls between the events of a run.
        """
        for _ in range(3):
            call()
        self._cuda.synchronize()
        start = perf_counter()
        call()
        issue_us = (perf_counter() - start) * 1e6 + 50
        for _ in range(2 + min(math.ceil(runs * issue_us / self._flush_us), 60)):
            self._flush()
        pairs = []
        for _ in range(runs):
            self._flush()
            pairs.append(self._between(call))
        return self._median(pairs)

    def graph_us(self, call: Call, launches: int = 20, replays: int = 60) -> float:
        """Time of one call in the replay of a graph of ``launches`` calls."""
        replay = self.graphed(call, launches)
        for _ in range(3):
            replay()
        times = []
        for _ in range(replays):
            self._cuda.synchronize()
            times.append(self._median([self._between(replay)]))
        return statistics.median(times) / launches

    def graphed(self, call: Call, launches: int = 1) -> Call:
        """The replay of a graph of so many calls."""
        stream = self._cuda.Stream()
        stream.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(stream):
            for _ in range(3):
                call()
        self._cuda.synchronize()
        graph = self._cuda.CUDAGraph()
        # Only this thread's calls may end the capture: JAX has threads of its own that talk to the driver.
        with self._cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(launches):
                call()
        replay: Call = graph.replay
        return replay

    def _between(self, call: Call) -> tuple[Any, Any]:
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        return start, end

    def _median(self, pairs: list[tuple[Any, Any]]) -> float:
        self._cuda.synchronize()
        return statistics.median(1e3 * float(start.elapsed_time(end)) for start, end in pairs)
