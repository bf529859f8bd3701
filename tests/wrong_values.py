"""Calls with a wrong value or shape, as in wrong_types.py, of activations, norms and quantization."""

from __future__ import annotations

import math

from wrong_types import Table, of_groups

VALUE_ERRORS: Table = {
    "no axis": (lambda m, a: m.swiglu_oai(a()), "gate_up must have at least one axis, got shape ()"),
    "an odd last axis": (
        lambda m, a: m.swiglu_oai(a(2, 7)),
        "gate_up must have an even last axis, [gate | up], got shape (2, 7)",
    ),
    "I = 48": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 96)),
        "half the last axis of gate_up must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "an up of another shape": (
        lambda m, a: m.swiglu_oai(a(2, 64), up=a(2, 32)),
        "up must have the shape of gate_up, (2, 64), got (2, 32)",
    ),
    "groups of gates alone": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), up=a(2, 64), groups=2),
        "groups must be 1 where up is an array of its own, got 2",
    ),
    "gates that do not alternate": (
        lambda m, a: m.swiglu_oai(a(2, 64), up=a(2, 64), layout="interleaved"),
        "layout must be 'split' where up is an array of its own, got 'interleaved'",
    ),
    "I = 16, apart": (
        lambda m, a: m.swiglu_oai_fake_quant(a(2, 16), up=a(2, 16)),
        "the last axis of gate_up must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "a last axis of 40": (
        lambda m, a: m.mxfp8_quantize(a(2, 40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "columns of half a block": (
        lambda m, a: m.mxfp8_quantize_transposed(a(40, 64)),
        "the second to last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "rows of half a block beside whole columns": (
        lambda m, a: m.mxfp8_quantize_both(a(64, 40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "square blocks of half the rows": (
        lambda m, a: m.mxfp8_quantize(a(2, 16, 64), square_blocks=True),
        "the second to last axis of x must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "square blocks of half the columns": (
        lambda m, a: m.mxfp8_quantize_transposed(a(64, 16), square_blocks=True),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "columns of a vector": (
        lambda m, a: m.mxfp8_quantize_transposed(a(64)),
        "x must have at least two axes, a matrix, got shape (64,)",
    ),
    "a count of rows that share scales": (
        lambda m, a: m.mxfp8_quantize(a(64, 64), square_blocks=True, num_rows=a(1, dtype="int32")),
        "num_rows must be None with square_blocks: rows share scales",
    ),
    "too few scales": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 1, dtype="uint8"))),
        "scales must have shape (2, 2) for values of shape (2, 64), got (2, 1)",
    ),
    "a weight of another size": (
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(32)),
        "weight must have shape (64,) or broadcast against x (2, 64), got (32,)",
    ),
    "a weight that would enlarge x": (
        lambda m, a: m.gemma_rmsnorm(a(1, 64), a(2, 64)),
        "weight must have shape (64,) or broadcast against x (1, 64), got (2, 64)",
    ),
    "an empty row": (
        lambda m, a: m.gemma_rmsnorm(a(2, 0), a(0)),
        "x must have a last axis of 1 to 131072 elements, got shape (2, 0)",
    ),
    "a row past the limit": (
        lambda m, a: m.gemma_rmsnorm(a(1, 131080), a(131080)),
        "x must have a last axis of 1 to 131072 elements, got shape (1, 131080)",
    ),
    "a residual of another shape": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(64), a(64)),
        "residual must have the shape of x, (2, 64), got (64,)",
    ),
    "alpha NaN": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=math.nan), "alpha must be a finite fp32 number"),
    "alpha past the largest float": (
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=10**400),
        "alpha must be a finite fp32 number and >= 0 and <= 1.84467e+19, got 1000",
    ),
    "alpha 1e-30": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=1e-30), "alpha must be 0 or at least 5.42101e-20, got "),
    "alpha -1": (lambda m, a: m.swiglu_oai_quantize(a(2, 64), alpha=-1.0), "got -1.0"),
    "alpha 1e30": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=1e30), "<= 1.84467e+19, got 1e+30"),
    "beta past fp32": (lambda m, a: m.swiglu_oai(a(2, 64), beta=1e39), "beta must be a finite fp32 number, got 1e+39"),
    "limit 0": (lambda m, a: m.swiglu_oai(a(2, 64), limit=0.0), "limit must be a finite fp32 number and > 0, got 0.0"),
    "limit -7": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=-7),
        "limit must be a finite fp32 number and > 0, got -7",
    ),
    "limit infinite": (lambda m, a: m.swiglu_oai(a(2, 64), limit=math.inf), "got inf"),
    "groups 0": (lambda m, a: m.swiglu_oai(a(2, 64), groups=0), "groups must be at least 1, got 0"),
    "groups that do not divide": (
        lambda m, a: m.swiglu_oai(a(2, 64), groups=3),
        "gate_up must have a last axis of 3 groups [gate | up], got shape (2, 64)",
    ),
    "groups of half a block": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), groups=2),
        "half a group of gate_up must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "eps negative": (
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(64), eps=-1e-6),
        "eps must be a finite fp32 number and >= 0, got -1e-06",
    ),
    "weight_offset infinite": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64), a(64), weight_offset=math.inf),
        "weight_offset must be a finite fp32 number, got inf",
    ),
    "eps NaN": (lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64), a(64), eps=math.nan), "got nan"),
    "an unknown layout": (
        lambda m, a: m.swiglu_oai(a(2, 64), layout="concatenated"),
        "layout must be 'split' or 'interleaved', got 'concatenated'",
    ),
    "an unknown scale rule": (
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_rule="ceil"),
        "scale_rule must be 'rceil' or 'floor', got 'ceil'",
    ),
    "an unknown format": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), fp8_format="e5m2"),
        "fp8_format must be 'e4m3fn' or 'e4m3fnuz', got 'e5m2'",
    ),
    "an unknown scale layout": (
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_layout="blocked"),
        "scale_layout must be 'row_major', 'swizzle_128x4', 'swizzle_8x4', 'shuffle_32x8', 'shuffle_32x4', "
        "'packed_ue8m0', 'swizzle_128x4_groups' or 'swizzle_128x4_spread_groups', got 'blocked'",
    ),
    "a norm of rows in groups": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64), scale_layout="swizzle_128x4_groups"),
        "scale_layout must be 'row_major', 'swizzle_128x4', 'swizzle_8x4', 'shuffle_32x8', 'shuffle_32x4' or "
        "'packed_ue8m0', got 'swizzle_128x4_groups'",
    ),
    "groups in a layout that has none": (
        lambda m, a: m.mxfp8_quantize(a(4, 64), a(2, dtype="int32"), scale_layout="swizzle_128x4"),
        "group_sizes must be None for scale_layout='swizzle_128x4', which has no groups",
    ),
    "a layout of groups without their sizes": (
        lambda m, a: m.swiglu_oai_quantize(a(4, 128), scale_layout="swizzle_128x4_spread_groups"),
        "group_sizes must be given for scale_layout='swizzle_128x4_spread_groups', got None",
    ),
    "scales of groups without their sizes": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128)),
        "group_sizes must be given for scale_layout='swizzle_128x4_groups', got None",
    ),
    "sizes of groups in two axes": (
        lambda m, a: m.mxfp8_quantize(a(4, 64), a(2, 1, dtype="int32"), scale_layout="swizzle_128x4_groups"),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "groups of rows in two axes": (
        lambda m, a: m.mxfp8_quantize(a(2, 3, 64), a(2, dtype="int32"), scale_layout="swizzle_128x4_groups"),
        "x must have two axes for scale_layout='swizzle_128x4_groups', got shape (2, 3, 64)",
    ),
    "scales of other groups": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128), a(2, dtype="int32")),
        "scales must have shape (256, 4) for values of shape (4, 64), got (128, 4)",
    ),
    "rows of groups that are counted": (
        lambda m, a: m.mxfp8_quantize(
            a(4, 64), a(1, dtype="int32"), scale_layout="swizzle_128x4_groups", num_rows=a(1, dtype="int32")
        ),
        "num_rows must be None for scale_layout='swizzle_128x4_groups': group_sizes has the number of rows",
    ),
    "scales of groups whose rows are counted": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128), a(1, dtype="int32"), num_rows=a(1, dtype="int32")),
        "num_rows must be None for scale_layout='swizzle_128x4_groups': group_sizes has the number of rows",
    ),
    "groups of rows whose pairs are in groups": (
        lambda m, a: m.swiglu_oai_quantize(
            a(2, 128), a(1, dtype="int32"), groups=2, scale_layout="swizzle_128x4_groups"
        ),
        "groups must be 1 for scale_layout='swizzle_128x4_groups', got 2",
    ),
    "tiled scales of a vector": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(64), a(64), scale_layout="swizzle_128x4"),
        "x must have at least two axes for scale_layout='swizzle_128x4', got shape (64,)",
    ),
    "tiled scales of groups": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 128), groups=2, scale_layout="swizzle_128x4"),
        "groups must be 1 for scale_layout='swizzle_128x4', got 2",
    ),
    "row-major scales said to be tiled": (
        lambda m, a: m.mxfp8_dequantize(
            m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="uint8"), "shuffle_32x8")
        ),
        "scales must have shape (256, 8) for values of shape (2, 64), got (2, 2)",
    ),
    "a norm's row of 40, to be quantized": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 40), a(40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "scales without the rows of values": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, dtype="uint8"))),
        "scales must have shape (2, 2) for values of shape (2, 64), got (2,)",
    ),
    "a weight with too many axes": (
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 64), a(1, 2, 64)),
        "weight must have shape (64,) or broadcast against x (2, 64), got (1, 2, 64)",
    ),
    "a residual of another size": (
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 96), a(64)),
        "residual must have the shape of x, (2, 64), got (2, 96)",
    ),
    "beta NaN": (lambda m, a: m.swiglu_oai(a(2, 64), beta=math.nan), "beta must be a finite fp32 number"),
    "limit NaN": (lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=math.nan), "limit must be a finite"),
    "limit too small for fp32": (
        lambda m, a: m.swiglu_oai(a(2, 64), limit=1e-50),
        "limit must be a finite fp32 number and > 0, got 1e-50",
    ),
    "two counts": (
        lambda m, a: m.swiglu_oai(a(4, 64), num_rows=a(2, dtype="int32")),
        "num_rows must have one element, or the shape of the first of the leading axes (4,), got shape (2,)",
    ),
    "counts of other experts": (
        lambda m, a: m.mxfp8_quantize(a(3, 5, 64), num_rows=a(5, dtype="int32")),
        "num_rows must have one element, or the shape of the first of the leading axes (3, 5), got shape (5,)",
    ),
    "a count for each row of tiled scales": (
        lambda m, a: m.mxfp8_quantize(a(3, 64), scale_layout="swizzle_128x4", num_rows=a(3, dtype="int32")),
        "num_rows must have one element, got shape (3,)",
    ),
    "more counts than programs hold": (
        lambda m, a: m.mxfp8_quantize(a(1025, 1, 32), num_rows=a(1025, dtype="int32")),
        "num_rows must have at most 1024 elements, got shape (1025,)",
    ),
}
