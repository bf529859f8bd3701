"""Tiny Triton kernels, each built around one operation."""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def float_kernel(x_ptr, y_ptr, z_ptr, o_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    """O = OP(x, y, z), all fp32."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    x = tl.load(x_ptr + i, mask=mask, other=0.0)
    y = tl.load(y_ptr + i, mask=mask, other=0.0)
    z = tl.load(z_ptr + i, mask=mask, other=0.0)
    if OP == "add":
        o = x + y
    elif OP == "sub":
        o = x - y
    elif OP == "mul":
        o = x * y
    elif OP == "mul_add":
        o = x * y + z
    elif OP == "fma":
        o = tl.fma(x, y, z)
    elif OP == "fma_neg":
        o = tl.fma(-x, tl.abs(y), -z)
    elif OP == "div":
        o = x / y
    elif OP == "div_rn":
        o = tl.div_rn(x, y)
    elif OP == "fast_div":
        o = libdevice.fast_dividef(x, y)
    elif OP == "sqrt_rn":
        o = tl.sqrt_rn(x)
    elif OP == "sqrt":
        o = tl.sqrt(x)
    elif OP == "rsqrt":
        o = tl.rsqrt(x)
    elif OP == "exp2":
        o = tl.exp2(x)
    elif OP == "log2":
        o = tl.log2(x)
    elif OP == "exp":
        o = tl.exp(x)
    elif OP == "log":
        o = tl.log(x)
    elif OP == "sigmoid":
        o = tl.sigmoid(x)
    elif OP == "minimum":
        o = tl.minimum(x, y)
    elif OP == "maximum":
        o = tl.maximum(x, y)
    elif OP == "minimum_nan":
        o = tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "maximum_nan":
        o = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "maximum3_nan":
        o = tl.maximum(tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL), z, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "max3":
        o = tl.maximum(tl.maximum(x, y), z)
    elif OP == "minmax":
        o = tl.minimum(tl.maximum(x, y), z)
    elif OP == "clamp":
        o = tl.clamp(x, -7.0, 7.0)
    elif OP == "clamp_nan":
        o = tl.clamp(x, -7.0, 7.0, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "where":
        o = tl.where(x < y, z, -x)
    elif OP == "abs":
        o = tl.abs(x)
    elif OP == "floor":
        o = tl.floor(x)
    elif OP == "ceil":
        o = tl.ceil(x)
    elif OP == "rint":
        o = libdevice.rint(x)
    elif OP == "trunc":
        o = libdevice.trunc(x)
    elif OP == "round_even_magic":
        o = (x + 12582912.0) - 12582912.0
    elif OP == "isnan":
        o = tl.where(x != x, 1.0, 0.0)
    elif OP == "isfinite":
        o = tl.where(tl.abs(x) < float("inf"), 1.0, 0.0)
    elif OP == "ldexp":
        o = libdevice.ldexp(x, (y.to(tl.int32, bitcast=True) >> 20))
    else:
        tl.static_assert(False, "unknown OP")
    tl.store(o_ptr + i, o, mask=mask)


@triton.jit
def int_kernel(x_ptr, y_ptr, z_ptr, o_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    """O = OP(x, y, z) on integers of any one width and signedness."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    x = tl.load(x_ptr + i, mask=mask, other=1)
    y = tl.load(y_ptr + i, mask=mask, other=1)
    z = tl.load(z_ptr + i, mask=mask, other=1)
    if OP == "add":
        o = x + y
    elif OP == "sub":
        o = x - y
    elif OP == "mul":
        o = x * y
    elif OP == "mul_add":
        o = x * y + z
    elif OP == "and":
        o = x & y
    elif OP == "or":
        o = x | y
    elif OP == "xor":
        o = x ^ y
    elif OP == "not":
        o = ~x
    elif OP == "bitop":
        o = (x & ~y) | (z ^ x)
    elif OP == "shl":
        o = x << (y & 15)
    elif OP == "shr":
        o = x >> (y & 15)
    elif OP == "shl_const":
        o = x << 3
    elif OP == "shr_const":
        o = x >> 3
    elif OP == "min":
        o = tl.minimum(x, y)
    elif OP == "max":
        o = tl.maximum(x, y)
    elif OP == "clamp":
        o = tl.minimum(tl.maximum(x, -100), 100)
    elif OP == "abs":
        o = tl.abs(x)
    elif OP == "umulhi":
        o = tl.umulhi(x, y)
    elif OP == "div":
        o = x // y
    elif OP == "rem":
        o = x % y
    elif OP == "div7":
        o = x // 7
    elif OP == "less":
        o = tl.where(x < y, z, x)
    elif OP == "equal":
        o = tl.where(x == y, z, x)
    else:
        tl.static_assert(False, "unknown OP")
    tl.store(o_ptr + i, o, mask=mask)


@triton.jit
def convert_kernel(x_ptr, o_ptr, n, BITCAST: tl.constexpr, BLOCK: tl.constexpr):
    """O = x in the element type of o."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(o_ptr + i, x.to(o_ptr.dtype.element_ty, bitcast=BITCAST), mask=i < n)


@triton.jit
def half_kernel(x_ptr, y_ptr, o_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    """O = OP(x, y) in bf16 or fp16, computed in that type."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    y = tl.load(y_ptr + i, mask=i < n)
    if OP == "add":
        o = x + y
    elif OP == "mul":
        o = x * y
    elif OP == "minimum":
        o = tl.minimum(x, y)
    elif OP == "maximum_nan":
        o = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "where":
        o = tl.where(x < y, x, y)
    elif OP == "neg_abs":
        o = -tl.abs(x)
    else:
        tl.static_assert(False, "unknown OP")
    tl.store(o_ptr + i, o, mask=i < n)


@triton.jit
def _bits_max(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def reduce_kernel(x_ptr, o_ptr, OP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, AXIS: tl.constexpr):
    """One tile [ROWS, COLS] a program, reduced along AXIS."""
    pid = tl.program_id(0)
    rows = tl.arange(0, ROWS)
    cols = tl.arange(0, COLS)
    x = tl.load(x_ptr + pid * ROWS * COLS + rows[:, None] * COLS + cols[None, :])
    if OP == "sum":
        o = tl.sum(x, axis=AXIS)
    elif OP == "max":
        o = tl.max(x, axis=AXIS)
    elif OP == "min":
        o = tl.min(x, axis=AXIS)
    elif OP == "max_nan":
        o = tl.reduce(x, AXIS, _bits_max)
    elif OP == "xor":
        o = tl.xor_sum(x, axis=AXIS)
    else:
        tl.static_assert(False, "unknown OP")
    kept: tl.constexpr = COLS if AXIS == 0 else ROWS
    tl.store(o_ptr + pid * kept + tl.arange(0, kept), o)


@triton.jit
def block_amax_kernel(x_ptr, o_ptr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Max |x| of every 32 consecutive elements of a row, broadcast back and stored beside each element."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    offsets = rows[:, None] * COLS + tl.arange(0, COLS)[None, :]
    blocks = tl.reshape(tl.load(x_ptr + offsets), (ROWS, COLS // 32, 32))
    amax = tl.max(tl.abs(blocks), axis=2)
    spread = tl.broadcast_to(amax[:, :, None], (ROWS, COLS // 32, 32))
    tl.store(o_ptr + offsets, tl.reshape(spread, (ROWS, COLS)))


@triton.jit
def layout_kernel(x_ptr, o_ptr, OP: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Moves the elements of one tile [ROWS, COLS] between lanes and waves."""
    rows = tl.arange(0, ROWS)
    cols = tl.arange(0, COLS)
    base = tl.program_id(0) * ROWS * COLS
    x = tl.load(x_ptr + base + rows[:, None] * COLS + cols[None, :])
    out = rows[:, None] * COLS + cols[None, :]
    if OP == "trans":
        x = tl.trans(x)
        out = cols[:, None] * ROWS + rows[None, :]
    elif OP == "split_join":
        a, b = tl.split(tl.reshape(x, (ROWS, COLS // 2, 2)))
        x = tl.reshape(tl.join(b, a), (ROWS, COLS))
    elif OP == "split_halves":
        a, b = tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLS // 2)), (0, 2, 1)))
        x = tl.reshape(tl.permute(tl.join(b, a), (0, 2, 1)), (ROWS, COLS))
    elif OP == "gather":
        reverse = tl.broadcast_to(COLS - 1 - cols[None, :], (ROWS, COLS))
        x = tl.gather(x, reverse, axis=1)
    elif OP == "flatten":
        x = tl.reshape(tl.trans(x), (ROWS, COLS))
    elif OP == "cumsum":
        x = tl.cumsum(x, axis=1)
    else:
        tl.static_assert(False, "unknown OP")
    tl.store(o_ptr + base + out, x)


@triton.jit
def copy_kernel(x_ptr, o_ptr, stride, n, BLOCK: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr):
    """Copies a three-axis grid of rows of n elements, `stride` apart."""
    row = tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))
    if WIDE:
        row = row.to(tl.int64)
    cols = tl.arange(0, BLOCK)
    if MASKED:
        x = tl.load(x_ptr + row * stride + cols, mask=cols < n, other=0)
        tl.store(o_ptr + row * stride + cols, x, mask=cols < n)
    else:
        tl.store(o_ptr + row * stride + cols, tl.load(x_ptr + row * stride + cols))


@triton.jit
def loop_kernel(x_ptr, o_ptr, n, stride, BLOCK: tl.constexpr):
    """Sum of a row in a run-time number of steps, and a branch that only some programs take."""
    row = tl.program_id(0)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for start in range(0, n, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + row * stride + cols, mask=cols < n, other=0)
    result = tl.sum(total, axis=0)
    if row % 3 == 1:
        result = -result
    tl.store(o_ptr + row, result)


@triton.jit
def collatz_kernel(x_ptr, o_ptr, n):
    """One element a program: a loop whose trip count depends on data."""
    i = tl.program_id(0)
    x = tl.load(x_ptr + i)
    steps = 0
    while x > 1:
        x = tl.where(x % 2 == 0, x // 2, 3 * x + 1)
        steps += 1
    tl.store(o_ptr + i, steps)


@triton.jit
def index_kernel(o_ptr, n, divisor, BLOCK: tl.constexpr):
    """Run-time division of every index and of the program number."""
    pid = tl.program_id(0)
    i = pid * BLOCK + tl.arange(0, BLOCK)
    tl.store(o_ptr + i, (i // divisor) * 1000 + i % divisor + (pid // divisor) * 7 + pid % divisor, mask=i < n)


@triton.jit
def scalar_kernel(o_ptr, alpha, beta, k, wide):
    """Scalar arguments of every kind."""
    i = tl.arange(0, 64)
    tl.store(o_ptr + i, tl.fma(i.to(tl.float32), alpha, beta) + k + wide.to(tl.float32))
