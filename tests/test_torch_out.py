"""``out=`` of the PyTorch front end: the same bytes in the caller's tensors, in place where that is safe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from backends import no_gpu
from compare import assert_same_bytes
from inputs import COUNTING, call_of
from rocm import torch_device
from test_torch import OPCHECKS, arrays, every_op, every_op_of_rows, function, tensors

import m3ops_torch
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import flat, to_tensor
from m3ops_torch import MXFP8
from m3ops_torch._operators import parameters

POISON = 0xA5


def poisoned(like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(like.view(torch.uint8), POISON).view(like.dtype)


def nested(structure: Any, leaf: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The structure of a result with other tensors in it."""
    if isinstance(structure, MXFP8):
        return replace(structure, values=leaf(structure.values), scales=leaf(structure.scales))
    return tuple(nested(part, leaf) for part in structure) if isinstance(structure, tuple) else leaf(structure)


def begin(name: str, out: Any, inputs: list[torch.Tensor]) -> None:
    """Makes memory for results as it may be before a call: zeros, but what is inserted to."""
    given = dict(zip(OPS[name].inputs, inputs, strict=False))
    inserted = [given[cache] for cache in OPS[name].updates] if OPS[name].inserts else []
    for tensor in flat(out):
        tensor.copy_(torch.zeros_like(tensor))
    for tensor, cache in zip(flat(out)[len(flat(out)) - len(inserted) :], inserted, strict=True):
        tensor.copy_(cache)


def wide(like: torch.Tensor) -> torch.Tensor:
    """Memory for a result whose rows lie in wider ones."""
    rows = torch.full((*like.shape[:-1], like.shape[-1] + 32), 0, dtype=torch.uint8, device=like.device)
    return torch.zeros(rows.shape, dtype=like.dtype, device=like.device)[..., 16 : 16 + like.shape[-1]]


@pytest.mark.parametrize(
    ("make", "name"),
    [(poisoned, name) for name in OPS] + [(wide, name) for name in COUNTING],  # matrices are written as a whole
    ids=[f"contiguous-{name}" for name in OPS] + [f"strided-{name}" for name in COUNTING],
)
def test_the_same_bytes_in_given_tensors(name: str, make: Callable[..., torch.Tensor], device: str) -> None:
    op, inputs = function(name), tensors(name, device)
    wanted = op(*inputs)
    out = nested(wanted, make)
    whole = any(own.whole_axes > 1 for own in call_of(name).axes.results) and not OPS[name].inserts
    if make is wide and whole:  # any row may be written
        with pytest.raises(ValueError, match="must be contiguous"):
            op(*inputs, out=out)
        return
    for _ in range(3):  # on a GPU later calls take a shorter way
        begin(name, out, inputs)
        result = op(*inputs, out=out)
        assert all(a is b for a, b in zip(flat(result), flat(out), strict=True))
        assert type(result) is type(wanted)
        assert_same_bytes(arrays(result), arrays(wanted))


@pytest.mark.parametrize("layout", TILES)
def test_tiled_scales_in_given_tensors(layout: str, device: str) -> None:
    (x,) = tensors("mxfp8_quantize", device)
    wanted = m3ops_torch.mxfp8_quantize(x, scale_layout=layout)
    out = nested(wanted, poisoned)
    m3ops_torch.mxfp8_quantize(x, scale_layout=layout, out=out)
    assert_same_bytes(arrays(out), arrays(wanted))
    strided = replace(out, scales=wide(out.scales))
    with pytest.raises(ValueError, match=r"out\[1\] must be contiguous"):
        m3ops_torch.mxfp8_quantize(x, scale_layout=layout, out=strided)


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@every_op_of_rows
def test_the_machine_code_for_amd_writes_given_tensors(name: str, arch: str) -> None:
    inputs = [t[:2, :3] if t.ndim == 3 else t for t in tensors(name, "cpu")]
    op = function(name)
    wanted = op(*inputs)
    out = nested(wanted, wide)
    with torch_device.device(arch):
        op(*inputs, out=out)
    assert_same_bytes(arrays(out), arrays(wanted))


# --- In place --------------------------------------------------------------------------------------------------------


def norm_arguments(num_rows: int, size: int, device: str) -> list[torch.Tensor]:
    rows = normal((num_rows, size), "bfloat16"), normal((num_rows, size), "bfloat16", 2.0), normal((size,), "bfloat16")
    return [to_tensor(array, device) for array in rows]


SIZES = [(5, 96), (3, 6144), (2, 20000), pytest.param(4096, 6144, marks=pytest.mark.gpu)]


@pytest.mark.parametrize(("num_rows", "size"), SIZES)
def test_norms_in_place(num_rows: int, size: int, device: str) -> None:
    if num_rows > 1000 and device == "cpu":
        pytest.skip("so many rows change the launch, and the CPU has none")
    x, residual, weight = norm_arguments(num_rows, size, device)
    wanted = arrays(m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight))
    norm = arrays(m3ops_torch.gemma_rmsnorm(x, weight))
    a, b = x.clone(), residual.clone()
    assert_same_bytes(arrays(m3ops_torch.gemma_fused_add_rmsnorm(a, b, weight, out=(a, b))), wanted)
    a, b = x.clone(), residual.clone()
    assert_same_bytes(arrays(m3ops_torch.gemma_fused_add_rmsnorm(a, b, weight, out=(b, a))), wanted)
    a = x.clone()
    assert_same_bytes(arrays(m3ops_torch.gemma_rmsnorm(a, weight, out=a)), norm)
    if size % 32 == 0:
        quantized, _, _ = m3ops_torch.gemma_fused_add_rmsnorm_quantize(x, residual, weight, out_norm=True)
        a, b, out = x.clone(), residual.clone(), nested(quantized, poisoned)
        m3ops_torch.gemma_fused_add_rmsnorm_quantize(a, b, weight, out_norm=True, out=(out, b, a))
        assert_same_bytes(arrays((a, b, out)), [*wanted, *arrays(quantized)])


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("size", [96, 6144, 20000])
def test_norms_in_place_on_amd(arch: str, size: int) -> None:
    x, residual, weight = norm_arguments(3, size, "cpu")
    wanted = arrays(m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight))
    with torch_device.device(arch):
        m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight, out=(x, residual))
    assert_same_bytes(arrays((x, residual)), wanted)


HEADS = [(16, 1, 1, 128), (3, 2, 1, 96), (64, 4, 4, 128), (4, 2, 0, 64)]


def qkv_arguments(heads: tuple[int, int, int, int], device: str) -> tuple[list[torch.Tensor], dict[str, int]]:
    q, k, v, size = heads
    made = normal((13, (q + k + v) * size), "bfloat16"), normal((size,), "bfloat16"), normal((size,), "float32")
    return [to_tensor(a, device) for a in made], {"num_heads_q": q, "num_heads_k": k, "num_heads_v": v}


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_heads_in_place(heads: tuple[int, int, int, int], device: str) -> None:
    (qkv, *weights), counts = qkv_arguments(heads, device)
    wanted = arrays(m3ops_torch.gemma_rmsnorm_heads(qkv, *weights, **counts))
    assert m3ops_torch.gemma_rmsnorm_heads(qkv, *weights, **counts, out=qkv) is qkv
    assert_same_bytes(arrays(qkv), wanted)


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_heads_in_place_on_amd(arch: str, heads: tuple[int, int, int, int]) -> None:
    """Programs of v heads end at once. Their bytes are signalling NaN, which a pass through fp32 would quiet."""
    (qkv, *weights), counts = qkv_arguments(heads, "cpu")
    first_v = (heads[0] + heads[1]) * heads[3]
    v = qkv[:, first_v:]
    v.copy_(torch.tensor([0x7F81], dtype=torch.uint16).view(torch.bfloat16).expand_as(v))
    wanted = arrays(m3ops_torch.gemma_rmsnorm_heads(qkv, *weights, **counts))
    with torch_device.device(arch):
        m3ops_torch.gemma_rmsnorm_heads(qkv, *weights, **counts, out=qkv)
    assert_same_bytes(arrays(qkv), wanted)
    assert (v.view(torch.uint16).int() == 0x7F81).all()


@pytest.mark.parametrize("heads", [(16, 1, 1, 1, 1, 128), (4, 2, 2, 2, 2, 64), (3, 2, 0, 1, 1, 96)], ids=str)
@pytest.mark.parametrize("arch", ["", "gfx942", "gfx950"])
def test_heads_around_v_in_place(arch: str, heads: tuple[int, ...], device: str) -> None:
    """The heads of an indexer follow those of v, which stay."""
    *numbers, size = heads
    kinds = ("q", "k", "v", "index_q", "index_k")
    counts = {f"num_heads_{kind}": number for kind, number in zip(kinds, numbers, strict=True)} | {"rotary_dim": 32}
    device = "cpu" if arch else device
    qkv, *weights, table = (
        to_tensor(normal(shape, dtype), device)
        for shape, dtype in (
            ((13, sum(numbers) * size), "bfloat16"),
            *(((size,), dtype) for dtype in ("bfloat16", "float32", "bfloat16", "float16")),
            ((20, 32), "float32"),
        )
    )
    v = qkv[:, sum(numbers[:2]) * size : sum(numbers[:3]) * size]
    v.copy_(torch.tensor([0x7F81], dtype=torch.uint16).view(torch.bfloat16).expand_as(v))
    positions = torch.arange(13, device=device)
    operands = qkv, *weights[:2], table, positions, *weights[2:]
    wanted = arrays(m3ops_torch.gemma_rmsnorm_rope_heads(*operands, **counts))
    with torch_device.device(arch) if arch else nullcontext():
        assert m3ops_torch.gemma_rmsnorm_rope_heads(*operands, **counts, out=qkv) is qkv
    assert_same_bytes(arrays(qkv), wanted)
    assert (v.view(torch.uint16).int() == 0x7F81).all()


# --- What autograd is told --------------------------------------------------------------------------------------------


def write_norm(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    m3ops_torch.gemma_rmsnorm(x, weight, out=out)


def write_counted(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    number = torch.ones(1, dtype=torch.int32, device=x.device)
    m3ops_torch.gemma_rmsnorm(x, weight, num_rows=number, out=out)


def write_in_place(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    m3ops_torch.gemma_fused_add_rmsnorm(out, x, weight, out=(out, x))


def compiled(write: Callable[..., None], backend: str) -> Callable[..., None]:
    def call(*operands: torch.Tensor) -> None:
        torch._dynamo.reset()
        torch.compile(write, fullgraph=True, backend=backend)(*operands)

    return call


WRITES = (write_norm, write_counted, write_in_place)
BACKENDS = ("eager", "aot_eager", "inductor")
every_way_to_write = pytest.mark.parametrize(
    "write",
    [
        *(pytest.param(write, id=write.__name__) for write in WRITES),
        *(pytest.param(compiled(w, b), id=f"{w.__name__} compiled, {b}") for w in WRITES for b in BACKENDS),
    ],
)


def check_that_autograd_knows(write: Callable[..., None], device: str) -> None:
    """A gradient that needs what a tensor held before somebody wrote there is an error, as with PyTorch's functions."""
    buffer, factor = torch.ones(2, 64, device=device), torch.ones(2, 64, device=device, requires_grad=True)
    loss = (factor * buffer).sum()
    with torch.no_grad():
        write(torch.randn(2, 64, device=device), torch.zeros(64, device=device), buffer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_way_to_write
def test_autograd_knows_what_is_written(write: Callable[..., None], device: str) -> None:
    for _ in range(2):  # on a GPU the second eager call takes a shorter way
        check_that_autograd_knows(write, device)


def test_autograd_knows_on_the_shorter_way() -> None:
    with torch_device.device("gfx950"):
        for _ in range(2):
            check_that_autograd_knows(write_norm, "cpu")


def test_what_inference_mode_made_may_be_written() -> None:
    with torch.inference_mode():
        x, out = torch.randn(2, 64), torch.empty(2, 64)
        m3ops_torch.gemma_rmsnorm(x, torch.zeros(64), out=out)
    assert_same_bytes(arrays(out), arrays(m3ops_torch.gemma_rmsnorm(x, torch.zeros(64))))


# --- torch.compile and the operator ----------------------------------------------------------------------------------


@every_op
def test_opcheck(name: str, device: str) -> None:
    inputs = tensors(name, device)
    out = [torch.zeros_like(t) for t in flat(function(name)(*inputs))]
    operator = getattr(torch.ops.m3ops, f"{name}_out").default
    # The schema test compares before and after with an operator that 8-bit floats lack.
    checks = [c for c in OPCHECKS if not (c == "test_schema" and any(t.itemsize == 1 for t in (*inputs, *out)))]
    torch.library.opcheck(operator, tuple(inputs), {**parameters(call_of(name)), "into": out}, test_utils=checks)


@every_op
def test_compile(name: str, device: str) -> None:
    """The result is used in the graph, and so is what the memory held before."""
    op, inputs = function(name), tensors(name, device)
    wanted = op(*inputs)
    out = nested(wanted, torch.zeros_like)
    begin(name, out, inputs)
    held = arrays(nested(out, torch.clone))

    torch._dynamo.reset()  # else the ops, one after another through one function, reach its limit of recompilations

    def step(*inputs: torch.Tensor, out: Any) -> Any:
        before = [tensor.clone() for tensor in flat(out)]
        result = op(*inputs, out=out)
        return [tensor.clone() for tensor in flat(result)], before

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")  # Inductor: test_compile_in_place
    after, before = compiled(*inputs, out=out)
    assert_same_bytes(arrays(tuple(after)), arrays(wanted))
    assert_same_bytes(arrays(out), arrays(wanted))
    assert_same_bytes(arrays(tuple(before)), held)


def test_compile_in_place(device: str) -> None:
    x, residual, weight = norm_arguments(5, 96, device)
    wanted = arrays(m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight))

    def step(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> None:
        m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight, out=(x, residual))

    torch.compile(step, fullgraph=True)(x, residual, weight)
    assert_same_bytes(arrays((x, residual)), wanted)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_into_wider_rows(backend: str, device: str) -> None:
    """Made in the graph, or given to it; one of several results, or the only one."""
    x, residual, weight = norm_arguments(5, 96, device)
    wanted = m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight)

    def step(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        own = torch.zeros(5, 200, dtype=x.dtype, device=x.device)
        m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight, out=(own[:, 8:104], own[:, 104:]))
        m3ops_torch.gemma_rmsnorm(own[:, 104:], weight, out=given[:, 32:])
        return own

    given = torch.zeros(5, 128, dtype=x.dtype, device=device)
    torch._dynamo.reset()
    own = torch.compile(step, fullgraph=True, backend=backend)(x, residual, weight, given)
    assert not own[:, :8].any()
    assert not given[:, :32].any()
    again = m3ops_torch.gemma_rmsnorm(wanted[1], weight)
    got = (own[:, 8:104].contiguous(), own[:, 104:].contiguous(), given[:, 32:].contiguous())
    assert_same_bytes(arrays(got), arrays((*wanted, again)))


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@every_op_of_rows
def test_graphs_replay_into_given_tensors(name: str) -> None:
    op, inputs = function(name), tensors(name, "cuda")
    out = nested(op(*inputs), torch.zeros_like)
    op(*inputs, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        op(*inputs, out=out)
    for tensor in inputs:
        if tensor.ndim == 3:
            tensor.copy_(tensor.flip(0))
    wanted = arrays(op(*inputs))
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bytes(arrays(out), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
def test_wrong_calls_after_a_right_one() -> None:
    """The way of later calls still looks where the memory is."""
    x, _, weight = norm_arguments(8, 64, "cuda")
    m3ops_torch.gemma_rmsnorm(x[:4], weight, out=torch.empty_like(x[:4]))
    with pytest.raises(ValueError, match="out must not overlap x"):
        m3ops_torch.gemma_rmsnorm(x[:4], weight, out=x[1:5])
    with pytest.raises(ValueError, match="out must be on the device of x, cuda:0, got cpu"):
        m3ops_torch.gemma_rmsnorm(x[:4], weight, out=x[:4].cpu())
