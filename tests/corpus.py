"""Generated calls: any op with random shapes, strides, dtypes and parameters, and random arrays with special numbers.

Call ``number`` of an op is the same on every machine: everything is drawn from the raw stream of PCG64, which NumPy
never changes (NEP 19). All that decides how a kernel is compiled belongs to a call; its arrays are drawn several times.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the names of the small dtypes)
import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, BLOCK, FORMATS, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import ROW_MAJOR, SCALE_LAYOUTS
from m3ops.op import Op
from m3ops.ops import OPS
from m3ops.ops.swiglu_oai.spec import LAYOUTS as LAYOUTS_OF_PAIRS
from m3ops.testing.case import operands
from m3ops.testing.cases import CASES

Shape = tuple[int, ...]


class Draw:
    """Random choices from a name."""

    def __init__(self, name: str) -> None:
        self._stream = np.random.PCG64(zlib.crc32(name.encode()))

    def bits(self, shape: Shape) -> np.ndarray:
        return np.asarray(self._stream.random_raw(int(np.prod(shape))), np.uint64).reshape(shape)

    def below(self, end: int) -> int:
        return int(self.bits(())) % end

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]

    def chance(self, one_in: int) -> bool:
        return self.below(one_in) == 0

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.below(2**24) / 2**24


BUFFERS = "moe_scatter_quantize", "num_experts"
"""What is not drawn: it needs other arrays."""


def _params(draw: Draw, op: str) -> dict[str, Any]:
    """Every parameter, usual or unusual; those unknown here stay at their defaults, but for flags."""
    ways: dict[str, Any] = {
        "alpha": lambda: draw.one_of([1.702, 1.0, 2.0 ** draw.between(-10, 6)]),
        "beta": lambda: draw.one_of([1.0, 0.0, draw.between(-3, 3)]),
        "limit": lambda: draw.one_of([7.0, None, 2.0 ** draw.between(-6, 10)]),
        "eps": lambda: draw.one_of([1e-6, 0.0, 2.0 ** draw.between(-40, 2)]),
        "weight_offset": lambda: draw.one_of([1.0, 0.0, draw.between(-2, 2)]),
        "scale_rule": lambda: draw.one_of(SCALE_RULES),
        "fp8_format": lambda: draw.one_of(tuple(FP8_FORMATS)),
        "out_dtype": lambda: draw.one_of(ACTIVATION_DTYPES),
        "scale_layout": lambda: draw.one_of(SCALE_LAYOUTS) if "scales" not in OPS[op].inputs else ROW_MAJOR,
        "layout": lambda: draw.one_of(LAYOUTS_OF_PAIRS),
        "groups": lambda: draw.one_of([1, 1, 2, 3]),
        "num_heads_q": lambda: draw.one_of([1, 2, 3, 4]),
        "num_heads_k": lambda: draw.one_of([1, 2]),
        "num_heads_v": lambda: draw.one_of([0, 1, 2]),
        "num_heads_index_q": lambda: draw.one_of([1, 2]),
        "num_heads_index_k": lambda: draw.one_of([1, 1, 2]),
        "q_dtype": lambda: draw.one_of([None, *(fmt.name for fmt in FP8_FORMATS.values())]),
        "scale": lambda: draw.one_of([2.0, 1.0, draw.between(-3, 3)]),
        "top_k": lambda: draw.one_of([1, 2, 4, 8]),
        "shared_experts": lambda: draw.one_of([0, 0, 1, 3]),
        "rotary_dim": lambda: draw.one_of([16, 32, 48, 64]),
        "num_experts": lambda: draw.one_of([1, 4, 8, 130]),
    }
    parameters = [parameter.name for parameter in fields(OPS[op]) if (op, parameter.name) != BUFFERS]
    return {
        name: ways[name]() if name in ways else draw.chance(2) for name in parameters if name in {*ways, *flags(op)}
    }


def flags(op: str) -> list[str]:
    """The parameters that are True or False."""
    return [parameter.name for parameter in fields(OPS[op]) if parameter.type == "bool"]


def _shapes(draw: Draw, op: str, params: dict[str, Any]) -> dict[str, Shape]:
    """Shapes of the inputs, up to 17 rows; where an op has inputs unknown here, those of one of its named cases."""
    groups, rotary_dim = params.get("groups", 1), params.get("rotary_dim", 0)
    heads = sum(number for name, number in params.items() if name.startswith("num_heads_"))
    rows = draw.one_of([(), (1,), (2,), (7,), (17,), (3, 5), (1, 4), (2, 1, 3), (2, 3, 2)])
    whole_blocks = "quant" in op or "mxfp8" in op
    size = BLOCK * (1 + draw.below(12)) if whole_blocks or draw.chance(2) else 1 + draw.below(400)
    size += rotary_dim
    shared = draw.one_of([(size,), (*rows[-1:], size), (*(1 for _ in rows), size)])
    columns = 1 + len(OPS[op].inputs) * size % 90
    known: dict[str, Shape | None] = {
        "gate_up": (*rows, 2 * groups * size),
        "group_sizes": None,  # of rows in groups alone
        "x": (*rows, size),
        "residual": (*rows, size),
        "weight": shared,
        "qkv": (*rows, heads * size),
        "weight_q": shared,
        "weight_k": (size,),
        "weight_index_q": (size,),
        "weight_index_k": shared,
        "q_scale": (1,) if params.get("q_dtype") else None,
        "cos_sin": (1 + draw.below(20), rotary_dim) if rotary_dim else (),
        "positions": rows,
        **dict.fromkeys(("values", "x_values"), (*rows, size)),
        **dict.fromkeys(("scales", "x_scales"), (*rows, size // BLOCK)),
        "w_values": (columns, size),
        "w_scales": (columns, size // BLOCK),
        "logits": (*rows, 7 + size),
        "bias": (*shared[:-1], 7 + size),
        "y": (1 + columns % 11, size),
        **dict.fromkeys(("slots", "weights"), (*rows, 1 + columns % 7)),
        "shared": (*rows, size),
        "ids": (*rows, 1 + columns % 7),
    }
    if op == "moe_scatter_quantize":
        return {"x": (math.prod(rows), size), "slots": (math.prod(rows), 1 + columns % 7)}
    if op == "mxfp8_grouped_matmul":
        total, groups = math.prod(rows), 1 + draw.below(5)
        return {
            "x_values": (total, size),
            "x_scales": (total, size // BLOCK),
            "w_values": (groups, columns, size),
            "w_scales": (groups, columns, size // BLOCK),
            "group_sizes": (groups,),
            "rows": (draw.below(20),),
        }
    if op == "mxfp8_k_grouped_matmul":
        total = math.prod(rows)
        return {
            "x_values": (total, size),
            "x_scales": (total, size // BLOCK),
            "w_values": (columns, size),
            "w_scales": (columns, size // BLOCK),
            "group_sizes": (1 + draw.below(5),),
        }
    if "key_cache" in OPS[op].inputs:
        known |= _caches(draw, params, rows, size)
    if "up" in OPS[op].inputs and groups == 1 and params["layout"] == "split" and draw.chance(2):
        known |= dict.fromkeys(("gate_up", "up"), (*rows, size))
    if set(OPS[op].inputs) - set(OPS[op].optional) <= set(known):
        return {name: shape for name in OPS[op].inputs if (shape := known.get(name)) is not None}
    arrays = draw.one_of([case for case in CASES if case.op == op]).make()
    # A case that counts rows has their number at its end.
    return {name: array.shape for name, array in zip(OPS[op].inputs, arrays, strict=False)}


def _caches(draw: Draw, params: dict[str, Any], rows: Shape, size: int) -> dict[str, Shape]:
    """Paged caches with at least as many slots as rows, and what comes with them."""
    block_size = draw.one_of([1, 3, 4, 16])
    blocks = math.prod(rows) // block_size + 1 + draw.below(3)
    kinds = {"key_cache": "num_heads_k", "value_cache": "num_heads_v", "index_cache": "num_heads_index_k"}
    return {
        **{name: (blocks, block_size, params[heads], size) for name, heads in kinds.items()},
        **dict.fromkeys(("slot_mapping", "index_slot_mapping"), rows),
        **dict.fromkeys(("k_scale", "v_scale"), (1,)),
    }


def _slots(draw: Draw, shape: Shape, dtype: str, cache: Shape) -> np.ndarray:
    """Different slots of a cache, some of them none."""
    order = np.argsort(draw.bits((cache[0] * cache[1],)), kind="stable")[: math.prod(shape)].reshape(shape)
    return np.where(draw.bits(shape) % np.uint64(4) == 0, -1, order).astype(dtype)


def _numbers(draw: Draw, shape: Shape, dtype: str) -> np.ndarray:
    """Numbers of one of several kinds a row, with special ones among them."""
    fmt = FORMATS[dtype]
    bits = draw.bits(shape)
    kind = (draw.bits((*shape[:-1], 1)) % np.uint64(8)).astype(int)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    scale = np.exp2((draw.bits((*shape[:-1], 1)) % np.uint64(24)).astype(np.float64) - 12)
    with np.errstate(over="ignore"):
        x = np.where(kind < 5, uniform * scale, np.rint(uniform * 64) / 8).astype(dtype)
    unsigned = np.dtype(f"u{x.itemsize}")
    raw = bits.astype(unsigned)
    subnormal = raw & unsigned.type(1 << (fmt.bits - 1) | (1 << (fmt.mantissa_bits + 1)) - 1)
    codes = np.where(kind == 6, raw, np.where(kind == 7, subnormal, x.view(unsigned)))
    specials = np.array([fmt.inf_code, fmt.nan_code, fmt.max_code, 0, 1, 1 << fmt.mantissa_bits], unsigned)
    special = specials[(bits % np.uint64(6)).astype(int)] | (raw & unsigned.type(1 << (fmt.bits - 1)))
    sprinkled = (kind % 2 == 1) & (draw.bits(shape) % np.uint64(64) == 0)
    return np.where(sprinkled, special, codes).astype(unsigned).view(dtype)


def _array(draw: Draw, shape: Shape, dtype: str) -> np.ndarray:
    if dtype in ACTIVATION_DTYPES:
        return _numbers(draw, shape, dtype)
    if dtype in ("int32", "int64"):  # positions, sizes, and numbers of rows of which some may not be there
        return (draw.bits(shape) % np.uint64(22 if dtype == "int64" else 10)).astype(dtype) - 1
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return draw.bits(shape).astype(unsigned).view(dtype)


LAYOUTS = ("contiguous", "contiguous", "columns of wider rows", "every other column", "every other row", "swapped axes")


def _laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers behind other strides."""
    if not array.shape:
        return np.asarray(array)
    *rows, size = array.shape
    view = array
    if layout == "columns of wider rows":
        view = np.zeros((*rows, size + 24), array.dtype)[..., 5 : 5 + size]
    elif layout == "every other column":
        view = np.zeros((*rows, 2 * size), array.dtype)[..., 1::2]
    elif layout == "every other row" and rows:
        view = np.zeros((2 * rows[0], *rows[1:], size), array.dtype)[::2]
    elif layout == "swapped axes" and len(rows) > 1:
        view = np.zeros((rows[1], rows[0], *rows[2:], size), array.dtype).swapaxes(0, 1)
    view[...] = array
    return view


LEADING: tuple[Shape, ...] = ((), (), (2,), (2, 1))
MATRICES = ("mxfp8_quantize_transposed", "mxfp8_quantize_both")


def _of_x(draw: Draw) -> tuple[str, str]:
    return draw.one_of(ACTIVATION_DTYPES), draw.one_of(LAYOUTS)


@dataclass(frozen=True)
class Call:
    """One generated call of an op."""

    op: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.op}: {self.number}"

    @cached_property
    def _drawn(self) -> tuple[dict[str, Any], dict[str, tuple[Shape, str, str]]]:
        draw = Draw(self.id)
        params = _params(draw, self.op)
        if params.get("square_blocks") or self.op in MATRICES:
            whole = BLOCK * (1 + draw.below(2))
            return params, {"x": ((*draw.one_of(LEADING), whole, BLOCK * (1 + draw.below(5))), *_of_x(draw))}
        if "key_cache" in OPS[self.op].inputs:
            params["num_heads_v"] = max(params["num_heads_v"], 1)
        shapes = _shapes(draw, self.op, params)
        if params.get("groups", 1) > 1 or len(next(iter(shapes.values()))) < 2:
            params.pop("scale_layout", None)  # of matrices alone
        dtype = draw.one_of(ACTIVATION_DTYPES)
        dtypes = dict.fromkeys(shapes, dtype) | {"weight": draw.one_of(ACTIVATION_DTYPES)}
        fp8 = FP8_FORMATS[draw.one_of(tuple(FP8_FORMATS))].name
        kinds = {"values": fp8, "scales": "uint8", "sizes": "int32", "rows": "int32", "ids": "int32"}
        kinds["positions"] = draw.one_of(["int32", "int64"])
        kinds |= {"mapping": kinds["positions"], "cache": fp8, "scale": "float32"}
        dtypes |= {name: kinds[kind] for name in shapes if (kind := name.rpartition("_")[2]) in kinds}
        dtypes |= {name: kind for name, kind in (("slots", "int32"), ("weights", "float32")) if name in shapes}
        return params, {name: (shape, dtypes[name], draw.one_of(LAYOUTS)) for name, shape in shapes.items()}

    @property
    def given(self) -> dict[str, Any]:
        """Keyword arguments."""
        return self._drawn[0]

    @property
    def call(self) -> Op:
        """The op with its parameters."""
        return OPS[self.op].of(**self.given)

    def operands(self, time: int) -> dict[str, np.ndarray]:
        """The input arrays by name, other ones each ``time``."""
        return operands(self.call, self.arrays(time))

    def arrays(self, time: int) -> tuple[np.ndarray, ...]:
        """The input arrays, likewise."""
        draw = Draw(f"{self.id}, {time}")
        drawn = self._drawn[1].items()
        made = {
            name: _slots(draw, shape, dtype, self._drawn[1]["key_cache"][0])
            if name.endswith("slot_mapping")
            else _array(draw, shape, dtype)
            for name, (shape, dtype, _) in drawn
        }
        return tuple(
            _laid_out(made[name], "contiguous" if name in ("group_sizes", "rows") else layout)
            for name, (_, _, layout) in drawn
        )

    def expected(self, time: int) -> tuple[np.ndarray, ...]:
        """The specification's results."""
        return tuple(self.call.reference(self.operands(time)).values())
