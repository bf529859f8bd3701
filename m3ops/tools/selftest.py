"""``python -m m3ops selftest``: this machine's results against the golden digests of the named cases."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec

from m3ops import __version__
from m3ops.testing import cases as ops
from m3ops.testing.case import Case, digest, first_difference
from m3ops.testing.cases import few_cases, golden
from m3ops.testing.layer import LAYER
from m3ops.tools.progress import Progress
from m3ops.tools.run import Arrays, run_jax, run_torch

Run = Callable[..., Arrays]

CASES = (*ops.CASES, LAYER)


@dataclass(frozen=True)
class FrontEnd:
    """A front end that is installed.

    Attributes:
        name: The package.
        device: What its results are computed on.
        run: ``(op name, input arrays, parameters) -> output arrays``.
        compiles: Whether each case costs a compilation. PyTorch on a CPU compiles nothing.
        threads: How many cases run at once. Only XLA's compilations for the CPU gain from several.
    """

    name: str
    device: str
    run: Run
    compiles: bool = False
    threads: int = 1


def selftest(*, full: bool = False) -> int:
    """Runs cases through each front end installed, on its GPU if there is one, and prints what agreed.

    Args:
        full: Whether a front end that compiles each case runs all of them too.

    Returns:
        0 if every byte is right, 1 if one is not, 2 if there is no front end.
    """
    versions = {name: metadata.version(name) for name in ("jax", "jax-triton", "torch", "triton") if _installed(name)}
    print(f"m3ops {__version__}, Python {platform.python_version()},", *(f"{n} {v}" for n, v in versions.items()))
    published, failures, left_out = golden(), [], []
    front_end = None
    for front_end in _front_ends():
        cases = (*few_cases(), LAYER) if front_end.compiles and not full else CASES
        print(f"\n{front_end.name} on {front_end.device}: {len(cases)} of {len(CASES)} cases", flush=True)
        failures += _check(front_end, cases, {case.id: published[case.id] for case in cases})
        if len(cases) < len(CASES):
            left_out.append(f"{len(CASES) - len(cases)} cases of {front_end.name}")
    if front_end is None:
        problem = "neither m3ops_jax nor m3ops_torch can run"
        print(f"{problem}: in a checkout, pip install '.[jax]' or '.[torch]'", file=sys.stderr)
        return 2
    print(*failures, sep="\n")
    if left_out:
        print(f"Not run: {', '.join(left_out)}. The others cover every op, dtype, option and kernel; --full runs all.")
    return 1 if failures else 0


def _check(front_end: FrontEnd, cases: Sequence[Case], published: Mapping[str, str]) -> list[str]:
    """Prints what agreed, and returns what did not."""
    digests, failed = {}, {}
    cases = sorted(cases, key=lambda case: case.op)
    with Progress(len(cases), "case") as progress, ThreadPoolExecutor(front_end.threads) as pool:
        progress.at(cases[0].op)
        for case, (digested, reason) in zip(cases, pool.map(partial(_try, front_end, published), cases), strict=True):
            progress.at(case.op)
            digests[case.id] = digested
            if reason:
                failed[case] = reason
            progress.step()
    for op in dict.fromkeys(case.op for case in cases):
        bad, count = sum(case.op == op for case in failed), sum(case.op == op for case in cases)
        print(f"  {'FAIL' if bad else 'pass'}  {op:<33}{count - bad:>4} of {count} cases")
    print(f"  digest of these results {_digest(digests)}, expected {_digest(published)}", flush=True)
    return [f"{front_end.name}: {case.id}: {reason}" for case, reason in failed.items()]


def _try(front_end: FrontEnd, published: Mapping[str, str], case: Case) -> tuple[str, str]:
    """The digest of the results, and what is wrong with them if they are not as they should be."""
    try:
        results = front_end.run(case.op, case.make(), case.given)
    except Exception as error:  # one broken case must not hide the others
        return "", f"{type(error).__name__}: {error}"
    got = digest(results)
    if got == published[case.id]:
        return got, ""
    difference = first_difference(results, case.expected())
    return got, difference or "as the specification here, but not as published: NumPy or this package is off"


def _digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def _front_ends() -> Iterator[FrontEnd]:
    """Those that are installed. Their imports take seconds, so each waits until the one before it is done."""
    if _installed("jax"):
        import jax

        device = jax.local_devices()[0]
        gpu = device.platform == "gpu"
        kind = device.client.platform_version.split("\n")[0] if gpu else ""
        backend = "rocm" if "rocm" in kind.lower() else "cuda" if gpu else "cpu"
        threads = 1 if gpu else os.cpu_count() or 1
        yield FrontEnd("m3ops_jax", device.device_kind, partial(run_jax, backend), compiles=True, threads=threads)
    if _installed("torch"):
        import torch

        gpu = torch.cuda.is_available()
        name = torch.cuda.get_device_name() if gpu else "cpu"
        yield FrontEnd("m3ops_torch", name, partial(run_torch, "cuda" if gpu else "cpu"), compiles=gpu)


def _installed(distribution: str) -> bool:
    return find_spec(distribution.replace("-", "_")) is not None
