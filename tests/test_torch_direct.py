"""Later calls of a kind go past the dispatcher. Here the CPU plays an AMD GPU, which runs their machine code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from rocm import torch_device
from rocm.launch import Launch
from test_torch import arrays
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import m3ops_torch
from m3ops.ops import EVERY_OP
from m3ops_torch import _direct
from m3ops_torch._call import run

WEIGHT = torch.linspace(-0.5, 0.5, 128)


@pytest.fixture
def gpu() -> Iterator[list[Launch]]:
    """A GPU that remembers what it launched."""
    launches: list[Launch] = []

    def execute(launch: Launch) -> None:
        launches.append(launch)
        launch.run()

    with torch_device.device("gfx950", execute):
        yield launches


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call whether it went past the dispatcher."""
    seen: list[bool] = []
    attempt = _direct.attempt

    def watched(*args: Any) -> Any:
        results = attempt(*args)
        seen.append(results is not None)
        return results

    monkeypatch.setattr(_direct, "attempt", watched)
    return seen


def norm(x: torch.Tensor) -> torch.Tensor:
    return m3ops_torch.gemma_rmsnorm(x, WEIGHT)


@pytest.mark.usefixtures("gpu")
def test_the_second_call_goes_past_the_dispatcher(direct: list[bool]) -> None:
    x, y = torch.randn(3, 128), torch.randn(3, 128)
    norm(x), norm(y), norm(y[:2])
    assert direct == [False, True, False]
    with torch.inference_mode():
        norm(torch.randn(3, 128)), norm(x)
    assert direct[3:] == [True, True]


class Plain(torch.Tensor):
    """A subclass that changes nothing."""


class Functions(TorchFunctionMode):
    """Sees functions before the dispatcher does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Sees what the dispatcher calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Profiler(torch.profiler.profile):
    """The profiler, and what it saw."""

    def __init__(self) -> None:
        super().__init__(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True)

    @property
    def names(self) -> list[str]:
        return [str(event.key) for event in self.key_averages()]


def negated(x: torch.Tensor) -> torch.Tensor:
    """The same numbers as a view whose memory holds their negation."""
    view = torch.complex(x, -x).conj().imag
    assert view.is_neg()
    return view


LOOKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "negative bit": negated,
    "subclass": lambda x: x.as_subclass(Plain),
    "zero tensor": lambda x: torch._efficientzerotensor(x.shape),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.usefixtures("gpu")
def test_a_tensor_that_is_more_than_its_memory(look: str, direct: list[bool]) -> None:
    x = torch.randn(3, 128)
    ordinary = torch.empty_strided(x.shape, LOOKS[look](x).stride())
    norm(ordinary.copy_(x))  # a kind that is kept
    for _ in range(2):
        given = LOOKS[look](x)
        want = norm(given.clone().as_subclass(torch.Tensor) + 0)
        del direct[:]
        assert_same_bytes(arrays(norm(given).as_subclass(torch.Tensor)), arrays(want))
        assert direct == [False]


@pytest.mark.usefixtures("gpu")
def test_a_complex_conjugate_is_no_input() -> None:
    x = torch.randn(3, 128, dtype=torch.complex64).conj()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"x must have dtype .*, got complex64"):
            norm(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
@pytest.mark.usefixtures("gpu")
def test_a_trace_records_the_operator() -> None:
    x, y = torch.randn(3, 128), torch.randn(3, 128)
    norm(x)
    traced = torch.jit.trace(norm, (x,))
    assert_same_bytes(arrays(traced(y)), arrays(norm(y)))


@pytest.mark.parametrize("kind", [Functions, Operators, Profiler])
@pytest.mark.usefixtures("gpu")
def test_whoever_watches_sees_every_call(kind: Any, direct: list[bool]) -> None:
    x = torch.randn(3, 128)
    for _ in range(2):
        with kind() as watcher:
            norm(x)
        assert [name for name in watcher.names if "gemma_rmsnorm" in name]
    assert direct == [False, False]


@pytest.mark.usefixtures("gpu")
def test_a_derivative_is_recorded(direct: list[bool]) -> None:
    x = torch.randn(3, 128)
    norm(x)
    assert norm(x.clone().requires_grad_()).requires_grad
    with torch.no_grad():
        norm(x.clone().requires_grad_())
    assert direct == [False, False, True]


def test_nothing_is_at_work_wherever_the_package_is_imported() -> None:
    """A mode at work in this moment is none that every later call is in."""
    script = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    from m3ops_torch import _direct
    assert not _direct._nothing_at_work()
assert _direct._nothing_at_work()
with torch.inference_mode():
    assert _direct._nothing_at_work()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.usefixtures("gpu")
def test_no_kind_is_mistaken_for_another() -> None:
    """Everything that tells launches apart, each after the others: shape, strides, alignment, dtype, parameters."""
    wide = torch.randn(4, 260)
    given = [wide[:, :128], wide[:, 1:129], wide[:, 4:132], wide[:2, :128], wide[:, :128].half(), wide[:, :256:2]]
    wanted = [arrays(m3ops_torch.gemma_rmsnorm(x.clone(), WEIGHT, eps=eps)) for x in given for eps in (1e-6, 1e-2)]
    for _ in range(2):
        got = [arrays(m3ops_torch.gemma_rmsnorm(x, WEIGHT, eps=eps)) for x in given for eps in (1e-6, 1e-2)]
        for a, b in zip(got, wanted, strict=True):
            assert_same_bytes(a, b)


def test_addresses_are_another_kind(gpu: list[Launch]) -> None:
    """Code for aligned rows loads 16 bytes at once, which at another address the memory would not give."""
    wide = torch.randn(4, 260)
    for columns in (slice(0, 128), slice(1, 129), slice(0, 128), slice(1, 129)):
        m3ops_torch.gemma_rmsnorm(wide[:, columns], WEIGHT)
    images = [launch.image for launch in gpu]
    assert images[0] != images[1]
    assert images[2:] == images[:2]


@pytest.mark.parametrize("name", ["gemma_rmsnorm", "gemma_rmsnorm_backward"])
def test_two_threads_make_the_first_call(name: str) -> None:
    """The second comes while the first compiles or, of a plan with two launches, between them."""
    op = EVERY_OP[name].of()
    operands = [torch.randn(70, 128), WEIGHT, torch.randn(70, 128)][: len(op.inputs)]
    launches: list[str] = []

    def slow(launch: Launch) -> None:
        launches.append(launch.kernel.name)
        time.sleep(0.2)
        launch.run()

    results: list[Any] = []
    with torch_device.device("gfx950", slow):
        threads = [threading.Thread(target=lambda: results.append(arrays(run(op, *operands)))) for _ in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        of_one_call = len(launches) // 2
        assert len(launches) == 2 * of_one_call
        for _ in range(2):
            del launches[:]
            results.append(arrays(run(op, *operands)))
            assert len(launches) == of_one_call
    assert len(results) == 4
    for result in results[1:]:
        assert_same_bytes(result, results[0])
