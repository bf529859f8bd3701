"""The timers of the benchmark, on a machine whose clock only work moves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from m3ops.tools.bench import timing


class FakeCuda:
    """``torch.cuda`` with one queue; ``work`` takes device time, or is recorded while a graph is captured."""

    def __init__(self) -> None:
        self.now_us, self.captured = 0.0, None
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at = np.nan

            def record(self) -> None:
                self.at = cuda.now_us

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) / 1e3

        class CUDAGraph:
            def __init__(self) -> None:
                self.work: list[float] = []

            def replay(self) -> None:
                cuda.now_us += sum(self.work)

        self.Event, self.CUDAGraph = Event, CUDAGraph
        self.Stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.current_stream, self.synchronize = (lambda: None), (lambda: None)
        self.stream = lambda stream: contextlib.nullcontext()

    @contextlib.contextmanager
    def graph(self, graph: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.captured = graph.work
        yield
        self.captured = None

    def work(self, us: float) -> None:
        if self.captured is None:
            self.now_us += us
        else:
            self.captured.append(us)


def fake_torch() -> tuple[SimpleNamespace, FakeCuda]:
    cuda = FakeCuda()
    flush = SimpleNamespace(amax=lambda: cuda.work(350.0))
    return SimpleNamespace(cuda=cuda, int32="int32", zeros=lambda *args, **kwargs: flush), cuda


def test_device_timers_time_the_call_alone() -> None:
    torch_like, cuda = fake_torch()
    timers = timing.DeviceTimers(torch_like)
    assert timers.flushed_us(lambda: cuda.work(12.5)) == pytest.approx(12.5)
    assert timers.graph_us(lambda: cuda.work(1.75)) == pytest.approx(1.75)


def test_wall_clock_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = [0.0], []
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

    def call(i: int = 0) -> int:
        now[0] += 40e-6
        return i

    assert timing.host_us(call, waited.append) == pytest.approx(40)
    waited.clear()
    assert timing.throughput_us(call, waited.append, in_flight=4) == pytest.approx(40)
    # Two batches of four to warm up and to estimate; then the oldest of four is awaited before each further call.
    assert waited[:6] == [3, 3, 0, 1, 2, 3]
