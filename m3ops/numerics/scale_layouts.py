"""Where the scale of a row and a block is stored: row by row, or in the tiles that matrix products read.

A tiled layout is one of whole matrices, the last two axes. Rows and blocks are padded to whole tiles, the padding is
zero, and the tiles follow each other row by row of tiles, but for the last layout. The result has the padded shape
``[..., rows, blocks]``; its bytes are in the order of the tiles, as consumers take them, flat or not.

``"swizzle_128x4"``: tiles of 128 rows x 4 blocks, 512 bytes, for NVIDIA's block-scaled products: cuBLAS
(https://docs.nvidia.com/cuda/cublas/#d-block-scaling-factors-layout), ``torch.nn.functional.scaled_mm`` with
``SWIZZLE_32_4_4``, CUTLASS, FlashInfer. The scale of row r and block c is at byte ``r % 32 * 16 + r // 32 * 4 + c`` of
its tile.

``"swizzle_8x4"``: tiles of 8 rows x 4 blocks, 32 bytes, for products of few rows by TensorRT-LLM's kernels:
``mm_mxfp8`` of FlashInfer with ``use_8x4_sf_layout`` (flashinfer fb28d72, csrc/nv_internal/tensorrt_llm/kernels/
quantization_utils.cuh, ``get_sf_out_offset_8x4``). The scale of row r and block c is at byte ``r * 4 + c`` of its tile.

``"shuffle_32x8"``: tiles of 32 rows x 8 blocks, 256 bytes, for AMD's block-scaled products on gfx950: ``shuffle_scale``
of aiter (ROCm/aiter 0122c48, aiter/ops/shuffle.py) and ``preSwizzleScalesGFX950`` of hipBLASLt's tests
(ROCm/rocm-libraries 337e728, mxDataGenerator/PreSwizzle.hpp). The scale of row r and block c is at byte
``c % 4 * 64 + r % 16 * 4 + c // 4 * 2 + r // 16`` of its tile. Rows are padded to a multiple of 256, as aiter does;
hipBLASLt asks for 32, and reads a part of that. Neither defines its padding.

``"shuffle_32x4"``: tiles of 32 rows x 4 blocks, 128 bytes, for AMD's block-scaled products on gfx1250: aiter's
``shuffle_mxfp8fp4_scale`` and ``shuffle_scale_n32k4`` (ROCm/aiter e404860, aiter/ops/shuffle.py). The scale of row r
and block c is at byte ``r * 4 + c`` of its tile. What pads rows is 127 there and zero here; it scales rows that nobody
keeps.

``"packed_ue8m0"``: tiles of 1 row x 4 blocks, an int32, which follow each other column by column, for DeepGEMM on
sm_100: ``get_mn_major_tma_aligned_packed_ue8m0_tensor`` (deepseek-ai/DeepGEMM 54e2261, csrc/jit_kernels/impls/
smxx_layout.hpp). Rows are padded to a multiple of 4: the tensor memory accelerator wants each column at a multiple of
16 bytes.

Two layouts are of consecutive groups of rows, as the experts of a layer have them, of sizes that only the device knows.
Each group is a matrix in ``"swizzle_128x4"`` of its own, with its own padding, in one array of rows of tiles, as many
as the worst of sizes needs: the array has ``(rows + 127 * groups) // 128 * 128`` rows, and what no group has is zero.
The two differ in where a group begins:

``"swizzle_128x4_groups"``: where the padding of the group before it ends, for grouped products by PyTorch and torchao:
``torch_to_blocked_2d_M_groups`` (pytorch/ao 36027d8, 0.19.0, torchao/prototype/moe_training/kernels/mxfp8/quant.py).

``"swizzle_128x4_spread_groups"``: where it would if every group before it had been padded as much as any can be. Row s,
the first of group g, is row ``(s + 127 * g) // 128 * 128``, whatever the sizes of the groups before it. For grouped
products by FlashInfer (flashinfer fb28d72, include/flashinfer/gemm/group_gemm_mxfp4_groupwise_sm100.cuh).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Array = Any
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tiles:
    """A tiled layout. Rows and blocks within a tile are each split in two, which gives the tile four axes.

    Attributes:
        rows: Rows of a tile, as (outer, inner): row ``r`` is ``(r // inner, r % inner)``.
        blocks: Blocks of a tile, likewise.
        order: The order in memory, slowest first, of the axes 0 and 1, those of the rows, and 2 and 3, of the blocks.
        pad_rows: The number of rows is padded to a multiple of it, that of blocks to a multiple of a tile's.
        by_columns: Whether tiles follow each other column by column of tiles.
    """

    rows: tuple[int, int]
    blocks: tuple[int, int]
    order: tuple[int, int, int, int]
    pad_rows: int
    by_columns: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and blocks of a tile."""
        return math.prod(self.rows), math.prod(self.blocks)

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Bytes from one index to the next along each of a tile's four axes."""
        sizes = (*self.rows, *self.blocks)
        outer, inner, block_outer, block_inner = (
            math.prod(sizes[after] for after in self.order[self.order.index(axis) + 1 :]) for axis in range(4)
        )
        return outer, inner, block_outer, block_inner

    def padded(self, shape: Shape) -> Shape:
        """The shape of the stored scales of a ``[..., rows, blocks]`` array."""
        *leading, rows, blocks = shape
        of_tile = self.shape[1]
        return (*leading, -(-rows // self.pad_rows) * self.pad_rows, -(-blocks // of_tile) * of_tile)


ROW_MAJOR = "row_major"
TILES = {
    "swizzle_128x4": Tiles(rows=(4, 32), blocks=(1, 4), order=(1, 0, 2, 3), pad_rows=128),
    "swizzle_8x4": Tiles(rows=(1, 8), blocks=(1, 4), order=(0, 1, 2, 3), pad_rows=8),
    "shuffle_32x8": Tiles(rows=(2, 16), blocks=(2, 4), order=(3, 1, 2, 0), pad_rows=256),
    "shuffle_32x4": Tiles(rows=(1, 32), blocks=(1, 4), order=(0, 1, 2, 3), pad_rows=32),
    "packed_ue8m0": Tiles(rows=(1, 1), blocks=(1, 4), order=(0, 1, 2, 3), pad_rows=4, by_columns=True),
}
SCALE_LAYOUTS = (ROW_MAJOR, *TILES)
"""Values of ``scale_layout``."""

SPREAD_GROUPS = "swizzle_128x4_spread_groups"
OF_GROUPS = ("swizzle_128x4_groups", SPREAD_GROUPS)
"""Further ones, of rows in groups."""
TILES_OF_GROUPS = "swizzle_128x4"
"""The layout of each of their groups."""


def stored_shape(shape: Shape, layout: str) -> Shape:
    """The shape in which scales ``[..., rows, blocks]`` are stored."""
    return shape if layout == ROW_MAJOR else TILES[layout].padded(shape)


def stored_shape_of_groups(shape: Shape, groups: int) -> Shape:
    """The same for scales ``[rows, blocks]`` of so many groups of rows."""
    tiles = TILES[TILES_OF_GROUPS]
    rows = (shape[0] + (tiles.pad_rows - 1) * groups) // tiles.pad_rows * tiles.pad_rows
    return tiles.padded((rows, shape[1]))


def arrange(scales: Array, layout: str) -> Array:
    """Scales ``[..., rows, blocks]`` as they are stored."""
    if layout == ROW_MAJOR:
        return scales
    xp, tiles = scales.__array_namespace__(), TILES[layout]
    stored = tiles.padded(scales.shape)
    pads = [(0, after - before) for before, after in zip(scales.shape, stored, strict=True)]
    tile_axes = _tile_axes(tiles, stored)
    batch = len(stored) - 2
    return xp.pad(scales, pads).reshape(tile_axes).transpose(_order(tiles, batch)).reshape(stored)


def restore(stored: Array, shape: Shape, layout: str) -> Array:
    """The scales of this shape, ``[..., rows, blocks]``, from their stored form."""
    if layout == ROW_MAJOR:
        return stored
    tiles = TILES[layout]
    order = _order(tiles, len(shape) - 2)
    tile_axes = _tile_axes(tiles, stored.shape)
    back = tuple(order.index(axis) for axis in range(len(order)))
    rows = stored.reshape([tile_axes[axis] for axis in order]).transpose(back).reshape(stored.shape)
    return rows[..., : shape[-2], : shape[-1]]


def _tile_axes(tiles: Tiles, stored: Shape) -> Shape:
    """``[..., row tiles, outer row, inner row, block tiles, outer block, inner block]``."""
    *batch, rows, blocks = stored
    tile_rows, tile_blocks = tiles.shape
    return (*batch, rows // tile_rows, *tiles.rows, blocks // tile_blocks, *tiles.blocks)


def _order(tiles: Tiles, batch: int) -> Shape:
    """The axes of :func:`_tile_axes` in the order of memory."""
    row_tiles, *rows, block_tiles, outer_block, inner_block = range(batch, batch + 6)
    within = (*rows, outer_block, inner_block)
    each = (block_tiles, row_tiles) if tiles.by_columns else (row_tiles, block_tiles)
    return (*range(batch), *each, *(within[axis] for axis in tiles.order))
