"""Vector floating-point arithmetic. Everything but the transcendental section rounds as IEEE 754 asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import fp
from .operands import vector

if TYPE_CHECKING:
    from .machine import Batch

A = np.ndarray
f32, f64, i32 = np.float32, np.float64, np.int32


def _quieting(function: Callable[..., A]) -> Callable[..., A]:
    return lambda *sources: fp.quiet_nans(function(*sources), *sources)


for _kind in ("f16", "f32", "f64"):
    # float16 goes through float32 in NumPy: 24 bits are enough (2 * 11 + 2) for the second rounding to be harmless
    _two = f"{_kind} = {_kind} {_kind}"
    vector(f"v_add_{_kind}", signature=_two)(_quieting(lambda a, b: a + b))
    vector(f"v_sub_{_kind}", signature=_two)(_quieting(lambda a, b: a - b))
    vector(f"v_subrev_{_kind}", signature=_two)(_quieting(lambda a, b: b - a))
    vector(f"v_mul_{_kind}", signature=_two)(_quieting(lambda a, b: a * b))

vector("v_fma_f32", "v_fmaak_f32", "v_fmamk_f32", signature="f32 = f32 f32 f32")(_quieting(fp.fma32))
vector("v_fmac_f32", signature="f32 = f32 f32 dst")(_quieting(fp.fma32))


@vector("v_mad_f32", "v_madmk_f32", signature="f32 = f32 f32 f32")
@_quieting
def _mad(a: A, b: A, c: A) -> A:
    """Two roundings; unlike v_fma it flushes denormals on every target that has it."""
    product = fp.flush(fp.flush(a) * fp.flush(b))
    return fp.flush(product + fp.flush(c))


vector("v_ceil_f32", signature="f32 = f32")(_quieting(np.ceil))
vector("v_floor_f32", signature="f32 = f32")(_quieting(np.floor))
vector("v_trunc_f32", signature="f32 = f32")(_quieting(np.trunc))
vector("v_rndne_f32", signature="f32 = f32")(_quieting(np.rint))


@vector("v_ldexp_f32", signature="f32 = f32 i32")
def _ldexp(a: A, n: A) -> A:
    """One rounding: float64 holds every intermediate value exactly within +-400 binary orders."""
    return fp.quiet_nans(np.ldexp(a.astype(f64), np.clip(n, -400, 400)).astype(f32), a)


# ---- minimum and maximum


def _low(a: A, b: A) -> A:
    return fp.extremum(a, b, largest=False)


def _high(a: A, b: A) -> A:
    return fp.extremum(a, b, largest=True)


def _low_nan(a: A, b: A) -> A:
    return fp.extremum_nan(a, b, largest=False)


def _high_nan(a: A, b: A) -> A:
    return fp.extremum_nan(a, b, largest=True)


def _med3(a: A, b: A, c: A) -> A:
    """The middle one; with a NaN among the sources the documents give min3 of the three."""
    middle = _high(_low(a, b), _low(_high(a, b), c))
    nan = np.isnan(a) | np.isnan(b) | np.isnan(c)
    return np.where(nan, _low(_low(a, b), c), middle)


for _kind in ("f16", "f32"):
    _two, _three = f"{_kind} = {_kind} {_kind}", f"{_kind} = {_kind} {_kind} {_kind}"
    for _suffix in (_kind, f"num_{_kind}"):  # gfx12 says num for the IEEE 754-2008 ones
        vector(f"v_min_{_suffix}", signature=_two)(_low)
        vector(f"v_max_{_suffix}", signature=_two)(_high)
        if _kind == "f32":
            vector(f"v_min3_{_suffix}", signature=_three)(lambda a, b, c: _low(_low(a, b), c))
            vector(f"v_max3_{_suffix}", signature=_three)(lambda a, b, c: _high(_high(a, b), c))
            vector(f"v_minmax_{_suffix}", signature=_three)(lambda a, b, c: _high(_low(a, b), c))
            vector(f"v_maxmin_{_suffix}", signature=_three)(lambda a, b, c: _low(_high(a, b), c))
        # gfx9 keeps the other half of a 16-bit result: these came with op_sel
        vector(f"v_med3_{_suffix}", signature=_three, keeps_high=_kind == "f16")(_med3)
    vector(f"v_minimum_{_kind}", signature=_two)(_low_nan)
    vector(f"v_maximum_{_kind}", signature=_two)(_high_nan)
vector("v_minimum3_f32", signature="f32 = f32 f32 f32")(lambda a, b, c: _low_nan(_low_nan(a, b), c))
vector("v_maximum3_f32", signature="f32 = f32 f32 f32")(lambda a, b, c: _high_nan(_high_nan(a, b), c))
vector("v_minimummaximum_f32", signature="f32 = f32 f32 f32")(lambda a, b, c: _high_nan(_low_nan(a, b), c))
vector("v_maximumminimum_f32", signature="f32 = f32 f32 f32")(lambda a, b, c: _low_nan(_high_nan(a, b), c))


# ---- division

vector("v_div_scale_f32", signature="f32 mask = f32 f32 f32")(fp.div_scale)
vector("v_div_fixup_f32", signature="f32 = f32 f32 f32")(fp.div_fixup)


@vector("v_div_fmas_f32", signature="f32 = f32 f32 f32 vcc")
def _div_fmas(a: A, b: A, c: A, scaled: A) -> A:
    return fp.quiet_nans(fp.div_fmas(a, b, c, scaled), a, b, c)


# ---- transcendental: within 1 ulp on hardware, so the last place is not known here


def _jittered(result: A, known: A | bool, rng: np.random.Generator) -> A:
    movable = np.isfinite(result) & (result != 0) & ~np.asarray(known)
    step = np.where(movable, rng.integers(-1, 2, result.shape), 0).astype(i32)
    return np.where(movable, (result.view(i32) + step).view(f32), result)


def _all_ones(a: A) -> A:
    return (a.view(np.uint32) & np.uint32(0x7FFFFF)) == 0x7FFFFF


def _approximate(function: Callable[[A], A], reciprocal: bool = False) -> Callable[[A, Batch], A]:
    """Denormals are flushed on both sides. The batch's jitter moves the result by -1, 0 or 1 ulp.

    One value is known: the reciprocal of a significand of all ones. One step up is 1.5 ulp from 1 / (1 - 2^-24), and
    one step down would survive refinement (Markstein's exception) and make the division sequence wrong, which is
    correctly rounded on hardware.
    """

    def run(a: A, batch: Batch) -> A:
        flushed = fp.flush(a)
        result = fp.flush(function(flushed.astype(f64)).astype(f32))
        if batch.ulp_jitter is not None:
            known = _all_ones(flushed) if reciprocal else False
            result = _jittered(result, known, batch.ulp_jitter)
        return fp.quiet_nans(result, flushed)

    return run


APPROXIMATE: dict[str, Callable[[A, Batch], A]] = {
    "exp_f32": _approximate(np.exp2),
    "log_f32": _approximate(np.log2),
    "rcp_f32": _approximate(np.reciprocal, reciprocal=True),
    "rcp_iflag_f32": _approximate(np.reciprocal, reciprocal=True),  # raises the integer division flag besides
    "rsq_f32": _approximate(lambda x: 1.0 / np.sqrt(x)),
    "sqrt_f32": _approximate(np.sqrt),
}
for _name, _function in APPROXIMATE.items():
    vector(f"v_{_name}", signature="f32 = f32 batch")(_function)
