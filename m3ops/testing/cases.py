"""Named cases of every op: what the tests check on each backend and ``python -m m3ops selftest`` on any device.

Each case pins a numeric corner or a way of passing arrays. Its inputs are made from integers by a generator whose
stream NumPy guarantees, so the digests in golden.json hold on every machine.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Iterator
from importlib import resources

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.target import Target
from m3ops.testing.case import Case
from m3ops.testing.discovery import modules

CASES: tuple[Case, ...] = tuple(case for module in modules("cases") for case in module.CASES)

ALWAYS = ("mxfp8_matmul: the largest sums of a block",)
"""Cases that show what a device may lack: this one, tensor cores that keep 24 bits of a sum."""


def golden() -> dict[str, str]:
    """The published digests by the ids of the cases."""
    digests: dict[str, str] = json.loads(resources.files("m3ops.testing").joinpath("golden.json").read_text())
    return digests


@functools.cache
def few_cases() -> tuple[Case, ...]:
    """Few cases that have together every trait of all cases; with them every kernel is launched."""
    traits = {case: frozenset(_traits(case)) for case in CASES}
    chosen = [case for case in CASES if case.id in ALWAYS]
    missing = frozenset[Hashable]().union(*traits.values()).difference(*(traits[case] for case in chosen))
    while missing:
        best = max(CASES, key=lambda case: len(traits[case] & missing))
        chosen.append(best)
        missing -= traits[best]
    return tuple(case for case in CASES if case in chosen)


def family(case: Case) -> str:
    """The folder of a case's op."""
    return type(case.call).__module__.rpartition(".")[0]


def _traits(case: Case) -> Iterator[Hashable]:
    """Its op, its dtype, each kernel, named option and parameter; its family, with counted rows too; a view, an empty
    array.
    """
    arrays = case.operands()
    if not all(array.size for array in arrays.values()):
        yield "empty"
        return
    yield case.op
    yield next(iter(arrays.values())).dtype.name
    yield family(case), row_count.NAME in arrays
    if case.has_views:
        yield "a view"
    for name, value in case.given.items():
        yield (name, value) if isinstance(value, bool | str) else name
    specs = {name: ArraySpec(array.shape, array.dtype.name) for name, array in arrays.items()}
    plan = case.call.plan({**specs, **case.call.check(specs)}, Target.named("sm_90"))
    for launch in plan.launches:
        yield launch.kernel.__name__
