"""The same as wrong_values.py, of products and of what experts need around them."""

from __future__ import annotations

import math

from wrong_types import Table, of_groups, quantized

VALUE_ERRORS_OF_EXPERTS: Table = {
    "a token without an axis": (
        lambda m, a: m.moe_layer(a(), a(4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32)),
        "x must have at least one axis, got shape ()",
    ),
    "a way back of other experts": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 3, 64, 32)),
        "w2 must have shape (4, 64, 32) for x of shape (5, 64), got (3, 64, 32)",
    ),
    "experts of another size": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 32), quantized(m, a, 4, 64, 32)),
        "w13 must have shape (4, 64, 64) for x of shape (5, 64), got (4, 64, 32)",
    ),
    "one matrix for all experts": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 64, 64), quantized(m, a, 4, 64, 32)),
        "w13 must have shape (64, 64, 64) for x of shape (5, 64), got (64, 64)",
    ),
    "logits of other tokens": (
        lambda m, a: m.moe_layer(a(5, 64), a(6, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32)),
        "logits must have shape (5, 4) for x of shape (5, 64), got (6, 4)",
    ),
    "half of a shared expert": (
        lambda m, a: m.moe_layer(
            a(5, 64),
            a(5, 4),
            a(4),
            quantized(m, a, 4, 64, 64),
            quantized(m, a, 4, 64, 32),
            (quantized(m, a, 64, 64),),
        ),
        "shared must hold two weights, got 1",
    ),
    "a shared expert in the stack and beside it": (
        lambda m, a: m.moe_layer(
            a(5, 64),
            a(5, 3),
            a(3),
            quantized(m, a, 4, 64, 64),
            quantized(m, a, 4, 64, 32),
            (quantized(m, a, 64, 64), quantized(m, a, 64, 32)),
            shared_in_stack=True,
        ),
        "shared_in_stack must be False with shared",
    ),
    "logits of a shared expert": (
        lambda m, a: m.moe_layer(
            a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32), shared_in_stack=True
        ),
        "logits must have shape (5, 3) for x of shape (5, 64), got (5, 4)",
    ),
    "a layer of an unknown arithmetic": (
        lambda m, a: m.moe_layer(
            a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32), arithmetic="quick"
        ),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "a weight of half a block of rows, to be trained": (
        lambda m, a: m.mxfp8_linear(a(4, 64), a(16, 64)),
        "the first axis of w must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "an unknown rule for what is trained": (
        lambda m, a: m.mxfp8_linear(a(4, 64), a(32, 64), scale_rule="up"),
        "scale_rule must be",
    ),
    "a weight of another K": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 32)),
        "w_values must have the size of x_values along the last axis, 64, got shape (8, 32)",
    ),
    "an unknown arithmetic": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), arithmetic="quick"),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "sizes of more groups than there are": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(3, dtype="int32")),
        "group_sizes must have shape (2,), one for each of w_values, got (3,)",
    ),
    "ends of groups in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, 1, dtype="int32")),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "rows in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(
            quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3, 1, dtype="int32")
        ),
        "rows must have one axis, [R], got shape (3, 1)",
    ),
    "leading axes of a grouped product": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "x_values must have two axes, [T, K], got shape (3, 4, 64)",
    ),
    "one weight for all groups": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), a(1, dtype="int32")),
        "w_values must have three axes, [G, N, K], got shape (8, 64)",
    ),
    "leading axes of a product of groups along K": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 8, 64), a(2, dtype="int32")),
        "x_values must have two axes, [M, K], got shape (3, 4, 64)",
    ),
    "weights of a product of groups along K": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "w_values must have two axes, [N, K], got shape (2, 8, 64)",
    ),
    "sizes along K in two axes": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), a(2, 1, dtype="int32")),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "leading axes of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(3, 4, 64), a(2, 32, 64), a(2, dtype="int32")),
        "x must have two axes, [T, K], got shape (3, 4, 64)",
    ),
    "one weight for a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(32, 64), a(1, dtype="int32")),
        "w must have shape [G, N, 64] for x of shape (4, 64), got (32, 64)",
    ),
    "a grouped layer of half blocks": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 48), a(2, 32, 48), a(2, dtype="int32")),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "a grouped layer whose gradient has half blocks": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 48, 64), a(2, dtype="int32")),
        "the middle axis of w must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "sizes of a grouped layer of more groups": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(3, dtype="int32")),
        "group_sizes must have shape (2,), one for each of w, got (3,)",
    ),
    "rows of a grouped layer in two axes": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), a(3, 1, dtype="int32")),
        "rows must have one axis, [R], got shape (3, 1)",
    ),
    "an unknown arithmetic of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), arithmetic="quick"),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "an unknown scale rule of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), scale_rule="ceil"),
        "scale_rule must be",
    ),
    "a batch of weights": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64)),
        "w_values must have two axes, [N, K], got shape (2, 8, 64)",
    ),
    "a product of half blocks": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 48), quantized(m, a, 8, 48)),
        "the last axis of x_values must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "scales of a product by element": (
        lambda m, a: m.mxfp8_matmul(
            quantized(m, a, 4, 64), m.MXFP8(a(8, 64, dtype="float8_e4m3fn"), a(8, 64, dtype="uint8"))
        ),
        "w_scales must have shape (8, 2) for w_values of shape (8, 64), got (8, 64)",
    ),
    "tokens with leading axes": (
        lambda m, a: m.moe_scatter_quantize(a(2, 3, 64), a(2, 3, 2, dtype="int32")),
        "x must have two axes, [T, K], got shape (2, 3, 64)",
    ),
    "tokens of 48": (
        lambda m, a: m.moe_scatter_quantize(a(3, 48), a(3, 2, dtype="int32")),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "slots of other tokens": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(4, 2, dtype="int32")),
        "slots must have shape [3, 1 to 32] for x of shape (3, 64), got (4, 2)",
    ),
    "no slots to scatter to": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 0, dtype="int32")),
        "slots must have shape [3, 1 to 32] for x of shape (3, 64), got (3, 0)",
    ),
    "buffers of unknown size": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2, dtype="int32"), num_experts=4),
        "rows must be given for buffers of 4 experts",
    ),
    "no rows to scatter to": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2, dtype="int32"), rows=0),
        "rows must be",
    ),
    "fewer experts than top_k": (
        lambda m, a: m.moe_route(a(2, 3), a(3)),
        "logits must have a last axis of 4 (top_k) to 4096 elements, got shape (2, 3)",
    ),
    "more experts than a program holds": (
        lambda m, a: m.moe_route(a(2, 4097), a(4097)),
        "logits must have a last axis of 4 (top_k) to 4096 elements, got shape (2, 4097)",
    ),
    "a bias of other experts": (
        lambda m, a: m.moe_route(a(2, 16), a(8)),
        "bias must have shape (16,) or broadcast against logits (2, 16), got (8,)",
    ),
    "a bias that would enlarge logits": (
        lambda m, a: m.moe_route(a(1, 16), a(2, 16)),
        "bias must have shape (16,) or broadcast against logits (1, 16), got (2, 16)",
    ),
    "no expert of a token": (lambda m, a: m.moe_route(a(2, 16), a(16), top_k=0), "top_k must be at least 1, got 0"),
    "fewer than no shared experts": (
        lambda m, a: m.moe_route(a(2, 16), a(16), shared_experts=-1),
        "shared_experts must be at least 0, got -1",
    ),
    "33 experts of a token with those that all have": (
        lambda m, a: m.moe_route(a(2, 64), a(64), top_k=31, shared_experts=2),
        "top_k + shared_experts must be at most 32, got 31 + 2",
    ),
    "33 experts of a token": (lambda m, a: m.moe_route(a(2, 64), a(64), top_k=33), "top_k must be at most 32, got 33"),
    "rows of experts with three axes": (
        lambda m, a: m.moe_combine(a(2, 4, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32")),
        "y must have two axes, [R, N], got shape (2, 4, 64)",
    ),
    "no slots": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 0, dtype="int32"), a(2, 0, dtype="float32")),
        "slots must have a last axis of 1 to 32 elements, got shape (2, 0)",
    ),
    "fewer weights than slots": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 3, dtype="float32")),
        "weights must have the shape of slots, (2, 4), got (2, 3)",
    ),
    "a router of other tokens": (
        lambda m, a: m.moe_logits(a(4, 64), a(8, 32)),
        "w must have shape [E, 64] for x of shape (4, 64), got (8, 32)",
    ),
    "a stack of routers": (
        lambda m, a: m.moe_logits(a(4, 64), a(2, 8, 64)),
        "w must have shape [E, 64] for x of shape (4, 64), got (2, 8, 64)",
    ),
    "a shared result of other rows": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), shared=a(1, 64)),
        "shared must have the shape of the result, (2, 64), got (1, 64)",
    ),
    "an infinite scale": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), scale=math.inf),
        "scale must be a finite fp32 number, got inf",
    ),
    "ids without an axis": (
        lambda m, a: m.moe_sort(a(dtype="int32"), 8),
        "ids must have at least one axis, got shape ()",
    ),
    "too many experts": (
        lambda m, a: m.moe_sort(a(2, 4, dtype="int32"), 4097),
        "num_experts must be at most 4096, got 4097",
    ),
    "no experts": (lambda m, a: m.moe_sort(a(2, 4, dtype="int32"), 0), "num_experts must be at least 1, got 0"),
    "rows gathered out of groups": (
        lambda m, a: m.mxfp8_grouped_matmul(
            of_groups(m, a, 256), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3, dtype="int32")
        ),
        "rows must be None for an x with scale_layout='swizzle_128x4_groups', which has groups",
    ),
    "a product of other groups": (
        lambda m, a: m.mxfp8_grouped_matmul(of_groups(m, a, 128), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "x_scales must have shape (256, 4) for x_values of shape (4, 64), got (128, 4)",
    ),
    "a product with one weight of rows in groups": (
        lambda m, a: m.mxfp8_matmul(of_groups(m, a, 128), quantized(m, a, 8, 64)),
        "'packed_ue8m0', got 'swizzle_128x4_groups'",
    ),
    "a weight in groups": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), of_groups(m, a, 128), a(2, dtype="int32")),
        "w_layout must be 'row_major', 'swizzle_128x4'",
    ),
    "counts of a product's rows": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 8, 64), num_rows=a(3, dtype="int32")),
        "num_rows must have one element, got shape (3,)",
    ),
}
