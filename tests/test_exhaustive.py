"""Every input there is: all bit patterns of fp32 and all pairs of bf16, on a GPU in a minute or so.

``pytest -m exhaustive -s`` runs them on a GPU and prints the largest errors. The same functions run on samples in the
interpreter wherever tests run, so that they are known to work before a GPU sees them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import interpreter
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from backends import BACKENDS, no_gpu
from test_interpreter import TARGETS

import m3ops_jax
from m3ops.numerics.exact.fp32 import load, power_of_two
from m3ops.numerics.formats import FP8_FORMATS, SCALE_BIAS, SCALE_NAN, SCALE_RULES
from m3ops.numerics.tile import fp32
from m3ops.ops.swiglu_oai import SwigluOAI
from m3ops.plan import Launch, Plan
from m3ops.planning import mx
from m3ops.target import Target
from m3ops.tools.run import flat, to_numpy, torch_function
from m3ops_torch import _launch

ALL = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.exhaustive, pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))],
    id="all",
)
SAMPLE = pytest.param("cpu", id="sample in the interpreter")
everywhere = pytest.mark.parametrize("device", [ALL, SAMPLE])

CHUNK = 2**25
"""Bit patterns at a time: 128 MiB of fp32."""

_INTERPRETED = next(backend for backend in BACKENDS if backend.name == "interpreter")


def call(op: str, *tensors: torch.Tensor, **given: Any) -> list[torch.Tensor]:
    """An op's kernel: on a GPU through PyTorch, else in the interpreter."""
    if tensors[0].is_cuda:
        return list(flat(torch_function(op)(*tensors, **given)))
    results = _INTERPRETED.run(op, [to_numpy(tensor) for tensor in tensors], given)
    return [torch.from_numpy(r.view(f"u{r.itemsize}")).view(getattr(torch, r.dtype.name)) for r in results]


def patterns(device: str, first: int = -(2**31), end: int = 2**31) -> Iterator[torch.Tensor]:
    """All int32 numbers from ``first`` up to ``end`` on a GPU; else some: random, at both ends, where rules turn."""
    if device == "cpu":
        turns = np.array([0, 0x7FFFF, 0x80000, 0x80001, 0x180000, 0x600000, 0x600001, 0x7FFFFF], np.uint32)
        fields = np.arange(0, 512 if first < 0 else 256, dtype=np.uint32)[:, None]  # sign and exponent
        yield torch.from_numpy((turns | fields << 23).astype(np.uint32).view(np.int32).ravel())
        rng = np.random.default_rng(11)
        yield torch.from_numpy(rng.integers(first, end, 1024).astype(np.int32))
        yield torch.from_numpy(np.r_[first : first + 512, end - 512 : end].astype(np.int32))
        return
    for start in range(first, end, CHUNK):
        yield torch.arange(start, min(start + CHUNK, end), dtype=torch.int32, device=device)


def all_numbers(dtype: torch.dtype, device: str) -> torch.Tensor:
    """Every number of a 16-bit dtype, by its bits."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int16, device=device).view(dtype)


def count_wrong(got: torch.Tensor, want: torch.Tensor, what: torch.Tensor) -> None:
    """Fails unless two tensors are equal as bits; a NaN of a wider float equals any other."""
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[got.itemsize]
    wrong = got.view(integer) != want.view(integer)
    if got.itemsize > 1:
        wrong &= ~(torch.isnan(got) & torch.isnan(want))
    if wrong.any():
        at = tuple(torch.nonzero(wrong)[0].tolist())
        pytest.fail(f"{int(wrong.sum())} wrong; of {what[at[: what.ndim]]}: got {got[at]}, want {want[at]}")


# --- fp32 to E4M3 ----------------------------------------------------------------------------------------------------


def e4m3_rule(bits: torch.Tensor, fp8: str) -> torch.Tensor:
    """E4M3 codes of the fp32 numbers with these int32 bits, by integer operations: to nearest even, saturating."""
    fmt = FP8_FORMATS[fp8]
    magnitude = bits & 0x7FFFFFFF
    exponent = (magnitude >> 23) - 127
    significand = torch.where(exponent > -127, (magnitude & 0x7FFFFF) | 0x800000, magnitude & 0x7FFFFF)
    shift = (20 + (fmt.min_exponent - exponent).clamp(min=0)).clamp(max=25)  # at 25 nothing is left, not even a half
    units = significand >> shift
    rest, half = significand - (units << shift), torch.ones_like(shift) << (shift - 1)
    units = units + ((rest > half) | ((rest == half) & (units % 2 == 1)))
    code = (((exponent - fmt.min_exponent).clamp(min=0) << 3) + units).clamp(max=fmt.max_code)
    negative = (bits < 0) if fmt.signed_zero else (bits < 0) & (code > 0)
    code = torch.where(negative, code | 0x80, code)
    return torch.where(magnitude > 0x7F800000, fmt.nan_code, code).to(torch.uint8)


@triton.jit
def _encode_kernel(bits_ptr, codes_ptr, N: tl.constexpr, FP8: tl.constexpr, CAST: tl.constexpr, LARGEST: tl.constexpr):
    offsets = tl.reshape(tl.program_id(0) * N + tl.arange(0, N), (1, N // 32, 32))
    x = fp32.from_bits32(tl.load(bits_ptr + offsets))
    broken = x != x
    if CAST != "nvidia":  # all others want numbers that do not overflow
        x = fp32.minimum(fp32.maximum(x, -LARGEST), LARGEST)
    tl.store(codes_ptr + offsets, fp32.encode_e4m3(x, broken, FP8, CAST))


def casts(targets: Sequence[Target]) -> set[tuple[str, str]]:
    """The pairs of format and way to convert that kernels for these targets contain, and the one that runs anywhere."""
    used = {(fp8, mx.cast(fp8, target)) for fp8 in FP8_FORMATS for target in targets}
    return used | {(fp8, "integer") for fp8 in FP8_FORMATS}


@everywhere
def test_e4m3_of_every_fp32(device: str) -> None:
    targets = TARGETS if device == "cpu" else [_launch.target_of(torch.device("cuda", 0))]
    for fp8, cast in sorted(casts(targets)):
        constants = {"N": 1024, "FP8": fp8, "CAST": cast, "LARGEST": FP8_FORMATS[fp8].max}
        for bits in patterns(device):
            codes = torch.full_like(bits, 0xA5, dtype=torch.uint8)
            grid = bits.numel() // constants["N"]
            if device == "cpu":
                arguments = {"bits_ptr": "bits", "codes_ptr": "codes"}
                one = Launch(_encode_kernel, (grid,), arguments, constants, ("codes",), num_warps=4)
                interpreter.run(Plan((one,), bytes_moved=0), {"bits": bits.numpy()}, {"codes": codes.numpy()})
            else:
                _encode_kernel[(grid,)](bits, codes, **constants)
            count_wrong(codes, e4m3_rule(bits, fp8), bits.view(torch.float32))


# --- scale rules -----------------------------------------------------------------------------------------------------


def check_scales(x: torch.Tensor, column: int, rule: str, fp8: str) -> None:
    """Blocks ``x [n, 32]``, zero but in one column: the scale by its definition, in float64, and every value."""
    fmt = FP8_FORMATS[fp8]
    values, scales = call("mxfp8_quantize", x, scale_rule=rule, fp8_format=fp8)
    peaks = x[:, column].float()
    scales = scales[:, 0]
    amax, exponent = peaks.double().abs(), scales.double() - SCALE_BIAS
    if rule == "rceil":  # the smallest scale under which the largest value does not saturate
        right = amax <= fmt.max * torch.exp2(exponent)
        right &= (scales == 0) | (amax > fmt.max * torch.exp2(exponent - 1))
    else:  # the exponent of amax less that of the largest value
        right = exponent == (torch.frexp(amax)[1] - 1 - fmt.max_exponent).clamp(min=-SCALE_BIAS)
        right |= (amax == 0) & (scales == 0)
    broken = ~torch.isfinite(peaks)
    right = torch.where(broken, scales == SCALE_NAN, right)
    assert bool(right.all()), f"{peaks[~right][0]}: scale byte {scales[~right][0]}"
    scaled = (peaks.double() * torch.exp2(-exponent)).float()  # exact, or far below the smallest value
    want = torch.zeros_like(values.view(torch.uint8))
    want[:, column] = e4m3_rule(scaled.view(torch.int32), fp8)
    want[broken] = fmt.nan_code
    count_wrong(values.view(torch.uint8), want, peaks)


@everywhere
@pytest.mark.parametrize("fp8", FP8_FORMATS)
@pytest.mark.parametrize("rule", SCALE_RULES)
def test_scale_of_every_amax(rule: str, fp8: str, device: str) -> None:
    """All 2**31 magnitudes of fp32, and every number of the 16-bit dtypes, as the largest of a block."""
    for number, bits in enumerate(patterns(device, first=0)):
        for part in bits.split(2**22):
            sign = torch.arange(len(part), dtype=torch.int32, device=device) << 31
            x = torch.zeros(len(part), 32, device=device)
            column = number % 32
            x[:, column] = (part | sign).view(torch.float32)
            check_scales(x, column, rule, fp8)
    for dtype in (torch.bfloat16, torch.float16):
        peaks = all_numbers(dtype, device)
        peaks = peaks if device == "cuda" else peaks[::61]
        x = torch.zeros(len(peaks), 32, dtype=dtype, device=device)
        x[:, 5] = peaks
        check_scales(x, 5, rule, fp8)


# --- activation ------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("limit", [7.0, None])
def test_activation_of_every_pair_of_bf16(limit: float | None, device: str) -> None:
    """Every gate with every up is the product of the two factors, and the op that quantizes makes MXFP8 of it.

    The factor of the gate is what the kernel gives for up + beta = 1; the next test compares it with the specification.
    """
    ups = all_numbers(torch.bfloat16, device)
    gates, at_once = ups, 256
    if device == "cpu":
        gates, at_once, ups = ups[13::4099], 2, ups[7::521][:96]
    factors = call("swiglu_oai", torch.stack([gates, torch.zeros_like(gates)], 1), limit=limit, out_dtype="float32")
    clamped = ups.float() if limit is None else ups.float().clamp(-limit, limit)
    for part, factor in zip(gates.split(at_once), factors[0].split(at_once), strict=True):
        gate_up = torch.cat([part[:, None].expand(-1, len(ups)), ups.expand(len(part), -1)], 1)
        want = factor * (clamped + 1.0)
        (got,) = call("swiglu_oai", gate_up, limit=limit, out_dtype="float32")
        count_wrong(got, want, part)
        (rounded,) = call("swiglu_oai", gate_up, limit=limit)
        count_wrong(rounded, want.to(torch.bfloat16), part)
        fused = call("swiglu_oai_quantize", gate_up, limit=limit)
        for one, other in zip(fused, call("mxfp8_quantize", want), strict=True):
            count_wrong(one.view(torch.uint8), other.view(torch.uint8), part)


ULP = {"bfloat16": 2.5, "float16": 2.6, "float32": 3.4}
"""The bounds in m3ops/numerics/README.md, to be the largest error found, rounded up to a tenth."""

FACTOR = {"limit": None, "out_dtype": "float32"}


@jax.jit
def _judged(gates: jax.Array, got: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many results are not the specification's bits, and the largest error in ulp beyond ``max(-z, 0) / 4``."""
    gate_up = jnp.concatenate([gates, jnp.zeros_like(gates)], axis=-1)
    want = SwigluOAI.of(**FACTOR).compute(gate_up)["activation"]
    got32, want32 = got.view(jnp.uint32), want.view(jnp.uint32)
    wrong = (got32 != want32) & ~(jnp.isnan(got) & jnp.isnan(want))
    gate = load(gates)
    truth = gate / (1 + jnp.exp(-1.702 * gate))
    exponent = ((jnp.abs(truth).view(jnp.int64) >> 52) & 0x7FF) - 1023
    error = jnp.abs(load(got) - truth) * power_of_two(23 - exponent) - jnp.maximum(-1.702 * gate, 0) / 4
    counts = jnp.isfinite(gate) & (jnp.abs(truth) > 2.0**-110)
    return jnp.sum(wrong), jnp.max(jnp.where(counts, error, -jnp.inf))


@functools.cache
def _gpu() -> jax.Device:
    return jax.local_devices(backend="rocm" if torch.version.hip else "cuda")[0]


@functools.partial(jax.jit, static_argnames=("size",))
def _fp32_from(start: int, *, size: int) -> jax.Array:
    """The fp32 numbers with the bits from ``start`` on."""
    return jax.lax.bitcast_convert_type(jnp.arange(size, dtype=jnp.uint32) + jnp.uint32(start), jnp.float32)


@jax.jit
def _factor(gates: jax.Array) -> jax.Array:
    gate_up = jnp.concatenate([gates, jnp.zeros_like(gates)], axis=-1)
    return m3ops_jax.swiglu_oai(gate_up, limit=None, out_dtype="float32")


def judged(gates: jax.Array, device: str) -> tuple[int, float]:
    """Gates through the kernel, against the specification and float64."""
    gates = gates.reshape(-1, min(4096, gates.size))
    if device == "cuda":
        got = _factor(gates)
    else:
        gate_up = np.concatenate([gates, np.zeros_like(gates)], axis=1)
        got = jnp.asarray(*_INTERPRETED.run("swiglu_oai", (gate_up,), FACTOR))
    cpu = jax.local_devices(backend="cpu")[0]
    if gates.size <= 65536:
        gates, got = jax.device_put((gates, got), cpu)
    with jax.enable_x64(True):
        wrong, worst = _judged(gates, got)
    # XLA contracts float64 on a GPU, so the specification's bits are known on the CPU alone.
    return int(wrong) if got.device == cpu else 0, float(worst)


def fp32_gates(device: str) -> Iterator[jax.Array]:
    if device == "cuda":
        return (_fp32_from(np.uint32(start), size=2**24) for start in range(0, 2**32, 2**24))
    return (jnp.asarray(bits.numpy().view(np.float32)) for bits in patterns(device))


@everywhere
@pytest.mark.parametrize("dtype", ULP)
def test_gate_factor_of_every_number(dtype: str, device: str) -> None:
    with jax.default_device(_gpu() if device == "cuda" else jax.local_devices(backend="cpu")[0]):
        every_code = np.arange(65536, dtype=np.uint16)
        chunks = fp32_gates(device) if dtype == "float32" else [jnp.asarray(every_code.view(dtype))]
        results = [judged(gates, device) for gates in chunks]
    wrong, worst = sum(wrong for wrong, _ in results), max(worst for _, worst in results)
    print(f"gate factor of {dtype}: {worst:.4f} ulp + max(-z, 0) / 4")
    assert wrong == 0
    assert worst <= ULP[dtype]
    if dtype != "float32" or device == "cuda":
        assert math.ceil(worst * 10) / 10 == ULP[dtype]
