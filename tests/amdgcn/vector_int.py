"""Vector instructions on integers and bits. Shift amounts use only the low bits that the width needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .operands import vector

u8, u16, u32, u64, i32, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64
A = np.ndarray


def _amount(x: A, bits: int, dtype: Any) -> A:
    return (x & x.dtype.type(bits - 1)).astype(dtype)


# ---- moves and logic

vector("v_mov_b32", "v_accvgpr_write_b32", "v_accvgpr_read_b32", "v_accvgpr_mov_b32", signature="b32 = b32")(
    lambda a: a
)
vector("v_mov_b16", signature="b16 = b16")(lambda a: a)
vector("v_mov_b64", signature="b64 = b64")(lambda a: a)
vector("v_not_b32", signature="b32 = b32")(lambda a: ~a)
vector("v_not_b16", signature="b16 = b16")(lambda a: ~a)
for _bits in (16, 32):
    vector(f"v_and_b{_bits}", signature=f"b{_bits} = b{_bits} b{_bits}")(lambda a, b: a & b)
    vector(f"v_or_b{_bits}", signature=f"b{_bits} = b{_bits} b{_bits}")(lambda a, b: a | b)
    vector(f"v_xor_b{_bits}", signature=f"b{_bits} = b{_bits} b{_bits}")(lambda a, b: a ^ b)
    vector(f"v_cndmask_b{_bits}", signature=f"b{_bits} = s{_bits} s{_bits} mask")(lambda a, b, m: np.where(m, b, a))
vector("v_xnor_b32", signature="b32 = b32 b32")(lambda a, b: ~(a ^ b))
vector("v_and_or_b32", signature="b32 = b32 b32 b32")(lambda a, b, c: (a & b) | c)
vector("v_or3_b32", signature="b32 = b32 b32 b32")(lambda a, b, c: a | b | c)
vector("v_xor3_b32", signature="b32 = b32 b32 b32")(lambda a, b, c: a ^ b ^ c)
vector("v_bfi_b32", signature="b32 = b32 b32 b32")(lambda a, b, c: (a & b) | (~a & c))


def _bitop(sources: list[A], table: int) -> A:
    """Bit (4 a + 2 b + c) of the table is the result for source bits a, b, c."""
    result = np.zeros_like(sources[0] ^ sources[1] ^ sources[2])
    for row in range(8):
        if (table >> row) & 1:
            a, b, c = (x if (row >> (2 - i)) & 1 else ~x for i, x in enumerate(sources))
            result = result | (a & b & c)
    return result


@vector("v_bitop3_b32", signature="b32 = b32 b32 b32", modifiers=("bitop3",))
def _bitop3_b32(a: A, b: A, c: A, bitop3: int) -> A:
    return _bitop([a, b, c], bitop3)


@vector("v_bitop3_b16", signature="b16 = b16 b16 b16", modifiers=("bitop3",), keeps_high=True)
def _bitop3_b16(a: A, b: A, c: A, bitop3: int) -> A:
    return _bitop([a, b, c], bitop3)


@vector("v_bitop2_b32", signature="b32 = b32 b32", modifiers=("bitop3",))
def _bitop2_b32(a: A, b: A, bitop3: int) -> A:
    """The dual form has two sources; the third reads as zero."""
    return _bitop([a, b, np.zeros((1, 1), u32)], bitop3)


# ---- shifts and bit fields

for _bits, _unsigned in ((16, u16), (32, u32)):

    def _shift_left(a: A, b: A, n: int = _bits, t: Any = _unsigned) -> A:
        return b << _amount(a, n, t)

    def _shift_right(a: A, b: A, n: int = _bits, t: Any = _unsigned) -> A:
        return b >> _amount(a, n, t)

    vector(f"v_lshlrev_b{_bits}", signature=f"b{_bits} = u{_bits} b{_bits}")(_shift_left)
    vector(f"v_lshrrev_b{_bits}", signature=f"b{_bits} = u{_bits} b{_bits}")(_shift_right)
vector("v_ashrrev_i16", signature="i16 = u16 i16")(lambda a, b: b >> _amount(a, 16, np.int16))
vector("v_ashrrev_i32", signature="i32 = u32 i32")(lambda a, b: b >> _amount(a, 32, i32))
vector("v_lshlrev_b64", signature="b64 = u32 b64")(lambda a, b: b << _amount(a, 64, u64))
vector("v_lshrrev_b64", signature="b64 = u32 b64")(lambda a, b: b >> _amount(a, 64, u64))
vector("v_ashrrev_i64", signature="i64 = u32 i64")(lambda a, b: b >> _amount(a, 64, i64))
vector("v_lshl_or_b32", signature="b32 = b32 u32 b32")(lambda a, b, c: (a << _amount(b, 32, u32)) | c)


@vector("v_alignbit_b32", signature="b32 = b32 b32 u32")
def _alignbit(a: A, b: A, c: A) -> A:
    """The 64 bits a:b shifted right by c[4:0]."""
    return (((a.astype(u64) << u64(32)) | b) >> _amount(c, 32, u64)).astype(u32)


@vector("v_bfe_u32", signature="u32 = u32 u32 u32")
def _bfe_u32(a: A, offset: A, width: A) -> A:
    width = _amount(width, 32, u32)
    return (a >> _amount(offset, 32, u32)) & ((u32(1) << width) - u32(1))


@vector("v_bfe_i32", signature="i32 = u32 u32 u32")
def _bfe_i32(a: A, offset: A, width: A) -> A:
    """The field of `width` bits at `offset`, sign-extended; width 0 gives 0. Above bit 31 are copies of it."""
    shifted = (a.view(i32) >> _amount(offset, 32, i32)).view(u32)
    width = _amount(width, 32, u32)
    field = shifted & ((u32(1) << width) - u32(1))
    sign = np.where(width == 0, u32(0), u32(1) << (np.maximum(width, u32(1)) - u32(1)))
    return ((field ^ sign) - sign).view(i32)


@vector("v_bfrev_b32", signature="b32 = b32")
def _bfrev(a: A) -> A:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        a = ((a >> u32(shift)) & u32(mask)) | ((a & u32(mask)) << u32(shift))
    return a


def leading_sign_bits(a: A) -> A:
    """How many bits from the top equal the sign bit; -1 where all 32 do."""
    folded = a ^ (a >> i32(31))
    _, length = np.frexp(folded.astype(np.float64))
    return np.where(folded == 0, -1, 32 - length).astype(i32)


vector("v_cls_i32", "v_ffbh_i32", signature="i32 = i32")(leading_sign_bits)


@vector("v_perm_b32", signature="b32 = b32 b32 u32")
def _perm(a: A, b: A, selector: A) -> A:
    """Each selector byte picks byte 0..7 of a:b (b is low), 8..11 a sign of a half, 12 zero, above 12 all ones."""
    a, b, selector = np.broadcast_arrays(a, b, selector)
    source = ((a.astype(u64) << u64(32)) | b)[..., None]
    signs = ((source >> np.arange(15, 64, 16, dtype=u64)) & u64(1)).astype(np.uint8) * np.uint8(255)
    others = np.broadcast_to(np.array([0, 255], np.uint8), (*a.shape, 2))
    choices = np.concatenate([source.view(np.uint8), signs, others], axis=-1)
    picks = np.minimum(np.ascontiguousarray(selector)[..., None].view(np.uint8), 13)
    return np.take_along_axis(choices, picks, axis=-1).view(u32)[..., 0]


# ---- addition and multiplication

_ADD = {"v_add_u32": "u32", "v_add_nc_u32": "u32", "v_add_u16": "u16", "v_add_nc_u16": "u16", "v_add_nc_u64": "u64"}
_SUB = {name.replace("add", "sub"): kind for name, kind in _ADD.items()}
_REV = {name.replace("add", "subrev"): kind for name, kind in _ADD.items()}
for _name, _kind in _ADD.items():

    @vector(_name, signature=f"{_kind} = {_kind} {_kind}", modifiers=("clamp",))
    def _add(a: A, b: A, clamp: int) -> A:
        """Clamp saturates instead of wrapping."""
        total = a + b
        return np.where(total < a, ~np.zeros_like(total), total) if clamp else total


for _name, _kind in _SUB.items():

    @vector(_name, signature=f"{_kind} = {_kind} {_kind}", modifiers=("clamp",))
    def _sub(a: A, b: A, clamp: int) -> A:
        return np.where(a < b, np.zeros_like(a - b), a - b) if clamp else a - b


for _name, _kind in _REV.items():
    vector(_name, signature=f"{_kind} = {_kind} {_kind}")(lambda a, b: b - a)

vector("v_add3_u32", signature="u32 = u32 u32 u32")(lambda a, b, c: a + b + c)
vector("v_lshl_add_u32", signature="u32 = u32 u32 u32")(lambda a, b, c: (a << _amount(b, 32, u32)) + c)
vector("v_add_lshl_u32", signature="u32 = u32 u32 u32")(lambda a, b, c: (a + b) << _amount(c, 32, u32))
vector("v_xad_u32", signature="u32 = u32 u32 u32")(lambda a, b, c: (a ^ b) + c)
# the shift of v_lshl_add_u64 has three bits, 0..4 being the documented range
vector("v_lshl_add_u64", signature="u64 = u64 u32 u64")(lambda a, b, c: (a << _amount(b, 8, u64)) + c)
vector("v_mul_lo_u32", signature="u32 = u32 u32")(lambda a, b: a * b)
vector("v_mul_lo_u16", signature="u16 = u16 u16")(lambda a, b: a * b)
vector("v_mul_u64", signature="u64 = u64 u64")(lambda a, b: a * b)
vector("v_mul_hi_u32", signature="u32 = u32 u32")(lambda a, b: ((a.astype(u64) * b.astype(u64)) >> u64(32)).astype(u32))
vector("v_mul_hi_i32", signature="i32 = i32 i32")(lambda a, b: ((a.astype(i64) * b.astype(i64)) >> i64(32)).astype(i32))
vector("v_mad_u32", signature="u32 = u32 u32 u32")(lambda a, b, c: a * b + c)
vector("v_mad_u16", signature="u16 = u16 u16 u16", keeps_high=True)(lambda a, b, c: a * b + c)
vector("v_mad_legacy_u16", signature="u16 = u16 u16 u16")(lambda a, b, c: a * b + c)


def low24(x: A) -> A:
    """24-bit multiplications ignore the top byte; signed ones take bit 23 as the sign."""
    return x & u32(0xFFFFFF) if x.dtype == u32 else (x << i32(8)) >> i32(8)


vector("v_mul_u32_u24", signature="u32 = u32 u32")(lambda a, b: low24(a) * low24(b))
vector("v_mul_i32_i24", signature="i32 = i32 i32")(lambda a, b: low24(a) * low24(b))
vector("v_mul_hi_u32_u24", signature="u32 = u32 u32")(
    lambda a, b: ((low24(a).astype(u64) * low24(b).astype(u64)) >> u64(32)).astype(u32)
)
vector("v_mad_u32_u24", signature="u32 = u32 u32 u32")(lambda a, b, c: low24(a) * low24(b) + c)
vector("v_mad_i32_i24", signature="i32 = i32 i32 i32")(lambda a, b, c: low24(a) * low24(b) + c)


# ---- carries: the mask result is the carry or borrow of each active lane


def _carry_out(total: A) -> tuple[A, A]:
    return total.astype(u32), (total < 0) | (total > 0xFFFFFFFF)


def _wide(*values: A) -> list[A]:
    return [x.astype(i64) for x in values]


@vector("v_add_co_u32", signature="u32 mask = u32 u32")
def _add_co(a: A, b: A) -> tuple[A, A]:
    a, b = _wide(a, b)
    return _carry_out(a + b)


@vector("v_sub_co_u32", signature="u32 mask = u32 u32")
def _sub_co(a: A, b: A) -> tuple[A, A]:
    a, b = _wide(a, b)
    return _carry_out(a - b)


@vector("v_subrev_co_u32", signature="u32 mask = u32 u32")
def _subrev_co(a: A, b: A) -> tuple[A, A]:
    return _sub_co(b, a)


@vector("v_addc_co_u32", "v_add_co_ci_u32", signature="u32 mask = u32 u32 mask")
def _addc(a: A, b: A, carry: A) -> tuple[A, A]:
    a, b, c = _wide(a, b, carry)
    return _carry_out(a + b + c)


@vector("v_subb_co_u32", "v_sub_co_ci_u32", signature="u32 mask = u32 u32 mask")
def _subb(a: A, b: A, borrow: A) -> tuple[A, A]:
    a, b, c = _wide(a, b, borrow)
    return _carry_out(a - b - c)


@vector("v_subbrev_co_u32", "v_subrev_co_ci_u32", signature="u32 mask = u32 u32 mask")
def _subbrev(a: A, b: A, borrow: A) -> tuple[A, A]:
    return _subb(b, a, borrow)


@vector("v_mad_u64_u32", "v_mad_co_u64_u32", signature="u64 mask = u32 u32 u64")
def _mad_u64(a: A, b: A, c: A) -> tuple[A, A]:
    total = a.astype(u64) * b.astype(u64) + c
    return total, total < c


@vector("v_mad_i64_i32", "v_mad_co_i64_i32", signature="i64 mask = i32 i32 i64")
def _mad_i64(a: A, b: A, c: A) -> tuple[A, A]:
    """The mask is bit 64 of the sum in 65 bits: its sign, which an overflow of 64 bits turns round."""
    product = a.astype(i64) * b.astype(i64)
    total = product + c
    overflow = ((total ^ product) & (total ^ c)) < 0
    return total, (total < 0) ^ overflow


vector("v_mad_nc_u64_u32", signature="u64 = u32 u32 u64")(lambda a, b, c: a.astype(u64) * b.astype(u64) + c)
vector("v_mad_nc_i64_i32", signature="i64 = i32 i32 i64")(lambda a, b, c: a.astype(i64) * b.astype(i64) + c)


# ---- minimum, maximum, median


def _med3(a: A, b: A, c: A) -> A:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


for _kind in ("u16", "i16", "u32", "i32", "u64", "i64"):
    _two, _three = f"{_kind} = {_kind} {_kind}", f"{_kind} = {_kind} {_kind} {_kind}"
    vector(f"v_min_{_kind}", signature=_two)(np.minimum)
    vector(f"v_max_{_kind}", signature=_two)(np.maximum)
    if not _kind.endswith("64"):  # gfx9 keeps the other half: these came with op_sel
        vector(f"v_min3_{_kind}", signature=_three, keeps_high=True)(lambda a, b, c: np.minimum(np.minimum(a, b), c))
        vector(f"v_max3_{_kind}", signature=_three, keeps_high=True)(lambda a, b, c: np.maximum(np.maximum(a, b), c))
        vector(f"v_med3_{_kind}", signature=_three, keeps_high=True)(_med3)
