"""``python -m m3ops selftest``: this machine's results against the golden digests of the named cases."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from importlib.util import find_spec

from m3ops import __version__
from m3ops.testing.case import Case, digest, first_difference
from m3ops.testing.cases import CASES, golden
from m3ops.tools.run import Arrays, run_jax, run_torch

Run = Callable[..., Arrays]


def selftest() -> int:
    """Runs every case through each front end installed, on its GPU if there is one, and prints what agreed.

    Returns:
        0 if every byte is right, 1 if one is not, 2 if there is no front end.
    """
    front_ends = list(_front_ends())
    if not front_ends:
        print("neither m3ops_jax nor m3ops_torch can run: install m3ops[jax] or m3ops[torch]", file=sys.stderr)
        return 2
    versions = {name: metadata.version(name) for name in ("jax", "jax-triton", "torch", "triton") if _installed(name)}
    print(f"m3ops {__version__}, Python {platform.python_version()},", *(f"{n} {v}" for n, v in versions.items()))
    published, failures = golden(), []
    for name, device, run in front_ends:
        print(f"\n{name} on {device}")
        digests, failed = _check(run, published)
        for op in dict.fromkeys(case.op for case in CASES):
            bad, count = sum(case.op == op for case in failed), sum(case.op == op for case in CASES)
            print(f"  {'FAIL' if bad else 'pass'}  {op:<33}{count - bad:>4} of {count} cases")
        print(f"  digest of all results {_digest(digests)}, expected {_digest(published)}")
        failures += [f"{name}: {case.id}: {reason}" for case, reason in failed.items()]
    print(*failures, sep="\n")
    return 1 if failures else 0


def _check(run: Run, published: Mapping[str, str]) -> tuple[dict[str, str], dict[Case, str]]:
    """The digests of all results, and what is wrong with those that are not as they should be."""
    digests, failed = {}, {}
    for case in CASES:
        try:
            results = run(case.op, case.make(), case.given)
        except Exception as error:  # one broken case must not hide the others
            digests[case.id], failed[case] = "", f"{type(error).__name__}: {error}"
            continue
        digests[case.id] = digest(results)
        if digests[case.id] != published[case.id]:
            difference = first_difference(results, case.expected())
            failed[case] = difference or "as the specification here, but not as published: NumPy or this package is off"
    return digests, failed


def _digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def _front_ends() -> Iterator[tuple[str, str, Run]]:
    if _installed("jax"):
        import jax

        device = jax.local_devices()[0]
        kind = device.client.platform_version.split("\n")[0] if device.platform == "gpu" else ""
        backend = "rocm" if "rocm" in kind.lower() else "cuda" if device.platform == "gpu" else "cpu"
        yield "m3ops_jax", device.device_kind, partial(run_jax, backend)
    if _installed("torch"):
        import torch

        gpu = torch.cuda.is_available()
        name = torch.cuda.get_device_name() if gpu else "cpu"
        yield "m3ops_torch", name, partial(run_torch, "cuda" if gpu else "cpu")


def _installed(distribution: str) -> bool:
    return find_spec(distribution.replace("-", "_")) is not None
