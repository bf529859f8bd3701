"""What a workload is: one call of an op at a size that MiniMax-M3 runs it at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.op import Op
from m3ops.ops import EVERY_OP, OPS
from m3ops.testing.case import operands
from m3ops.testing.model import EXPERT_BUFFER, LIVE_ROWS, LOCAL_EXPERTS, PADDED_ROWS

Inputs = Callable[[int, int], tuple[ArraySpec, ...]]
"""The inputs of an op by the number of rows and the elements of a row of the result."""


SomeRows = Callable[[Sequence[Any], Any], tuple[Any, ...]]
"""The operands by those of all rows and the numbers of some."""


@dataclass(frozen=True)
class Workload:
    """One call of an op at a size that the model runs it at.

    Attributes:
        op: Name of the op; for the gradient of an op, of the one that computes it.
        name: Where in the model the size occurs, unique among the op's.
        num_rows: Rows of the operands.
        size: Elements of a row of the result, I or N.
        inputs_of: Shapes and dtypes of the inputs for such sizes.
        given: Keyword arguments that differ from the defaults.
        small: Whether launch latency decides its speed, not memory bandwidth.
        live: How many of the rows count, given on the device as ``num_rows=``; None for all, without it.
        experts: Among how many buffers the rows are divided, in each of which so many count.
        into: Whether results go to memory that is given as ``out=``.
        some_rows: Gives the operands of some rows of the result, where these are not just those rows of the operands.
        rows_each: What int32 operands hold, the rows of each group.
        below: What int32 operands hold, numbers below this one, each equally often; without either each number once.
    """

    op: str
    name: str
    num_rows: int
    size: int
    inputs_of: Inputs
    given: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    live: int | None = None
    experts: int = 1
    into: bool = False
    some_rows: SomeRows | None = None
    rows_each: int = 0
    below: int = 0

    @property
    def kind(self) -> str:
        """``"large"``, ``"small"``, ``"padded"`` or ``"gradient"``."""
        if self.op not in OPS:
            return "gradient"
        return "padded" if self.live is not None else "small" if self.small else "large"

    @property
    def forward(self) -> str:
        """The public op: this one, or the one whose gradient it computes."""
        return self.op.removesuffix("_backward")

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"

    @property
    def call(self) -> Op:
        """The op with its parameters."""
        return EVERY_OP[self.op].of(**self.given)

    @property
    def axes(self) -> Axes:
        """Those of the inputs that there are, and of the results."""
        return self.call.axes_of(operands(self.call, self.inputs))

    @property
    def inputs(self) -> tuple[ArraySpec, ...]:
        return self.inputs_of(self.num_rows, self.size)

    @property
    def results(self) -> dict[str, ArraySpec]:
        return self.call.check(operands(self.call, self.inputs))

    @property
    def bytes_moved(self) -> int:
        """Each input byte read once and each result byte written once; of rows that do not count only zeros written.

        What is inserted to is not read: it has a place for each row.
        """
        unread = self.call.updates if self.call.inserts else ()
        read = [spec for name, spec in operands(self.call, self.inputs).items() if name not in unread]
        inputs, results = (sum(spec.nbytes for spec in specs) for specs in (read, self.results.values()))
        if self.live is None:
            return inputs + results
        live = min(self.live, self.num_rows // self.experts) * self.experts
        alone = replace(self.with_rows(live), live=None)
        zeros = 0 if self.into else results - sum(spec.nbytes for spec in alone.results.values())
        return alone.bytes_moved + zeros

    def with_rows(self, num_rows: int) -> Workload:
        """The same call with another number of rows."""
        return replace(self, num_rows=num_rows)


def padded(op: str, size: int, inputs_of: Inputs) -> Iterator[Workload]:
    """A decode step in a buffer for the worst case, with and without memory for its results."""
    whole = Workload(op, f"{LIVE_ROWS} of {PADDED_ROWS} rows", PADDED_ROWS, size, inputs_of, small=True, live=LIVE_ROWS)
    yield whole
    yield replace(whole, name=f"{whole.name}, out=", into=True)


def of_experts(op: str, size: int, inputs_of: Inputs) -> Iterator[Workload]:
    """Buffers of several experts, in a decode step and full."""
    for live, name in ((LIVE_ROWS, f"{LIVE_ROWS}"), (EXPERT_BUFFER, "all")):
        yield Workload(
            op,
            f"{name} of {EXPERT_BUFFER} rows of {LOCAL_EXPERTS} experts, out=",
            LOCAL_EXPERTS * EXPERT_BUFFER,
            size,
            inputs_of,
            small=live == LIVE_ROWS,
            live=live,
            experts=LOCAL_EXPERTS,
            into=True,
        )


def rows(num_rows: int, size: int) -> ArraySpec:
    """Activations."""
    return ArraySpec((num_rows, size), "bfloat16")


def weight(size: int) -> ArraySpec:
    """A weight of a norm."""
    return ArraySpec((size,), "bfloat16")
