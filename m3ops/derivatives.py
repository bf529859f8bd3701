"""What a front end raises when it is asked for a derivative that an op does not have."""

from __future__ import annotations

from m3ops.op import Op


def missing(op: Op, without: str, custom: str, *, counted: bool = False) -> Exception:
    """The exception.

    Args:
        op: The op.
        without: How the framework stops a gradient.
        custom: How the framework lets one define a derivative.
        counted: Whether the call has ``num_rows``, with which no op has a derivative.
    """
    name = op.name.removesuffix("_backward")
    if op.differentiable:
        which = (
            "second derivative" if op.name.endswith("_backward") or (op.derivative and not counted) else "derivative"
        )
        with_count = " with num_rows" if counted else ""
        return NotImplementedError(f"{name} has no {which}{with_count}; define one with {custom}")
    return TypeError(
        f"{name} has no derivative: rounding to MXFP8 is a step function. Stop the gradient with {without}, "
        f"define one around the call with {custom}, or let it pass straight through, as that of "
        "swiglu_oai_fake_quant does"
    )
