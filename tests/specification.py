"""The specification as a function of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from inputs import PARAMETERS

from m3ops.ops import EVERY_OP
from m3ops.testing.case import operands


def reference(name: str, *arrays: np.ndarray, **given: Any) -> tuple[np.ndarray, ...]:
    """The results of an op, with parameters or with those of inputs.py; one more array than it has inputs is the number
    of rows that count.
    """
    op = EVERY_OP[name].of(**(given or PARAMETERS.get(name, {})))
    return tuple(op.reference(operands(op, arrays)).values())
