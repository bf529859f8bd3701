"""DTensor: rows that are sharded stay where they are."""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
import torch
from test_torch import tensors

from m3ops.axes import Axes
from m3ops.ops import OPS
from m3ops_torch._sharding import PARTIAL, REPLICATED, placements


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_processes(device: str, tmp_path: Path) -> None:
    """Bytes and collectives, counted by PyTorch's CommDebugMode: the checks are in the worker."""
    torch.save({name: tensors(name, "cpu") for name in OPS}, tmp_path / "operands")
    processes.run("dtensor_worker.py", device, tmp_path)


# --- Ways to divide, from the axes alone. The devices of an axis of a mesh are four. ----------------------------------

PRODUCT = Axes.of("*r (k 32!)+, *r k+, n (k 32!)+, n k+ -> *r n")
WHOLE, SUM = REPLICATED, PARTIAL


def test_rows_are_divided_and_a_weight_that_lacks_them_is_whole() -> None:
    norm = Axes.of("*r N!, *r? N! -> *r N!")
    assert placements(norm, [(8, 6, 64), (64,)], 4) == [[WHOLE] * 3, [0, 0, WHOLE], [1, 1, WHOLE]]
    assert placements(norm, [(8, 6, 64), (6, 64)], 4)[2] == [1, 1, 0]


def test_buffers_are_divided_with_their_counts_and_rows_are_not() -> None:
    quantize = Axes.of("*r N! -> *r N!, *r N!")
    assert placements(quantize, [(8, 6, 64), (8,)], 4) == [[WHOLE] * 4, [0, 0, 0, 0]]
    assert placements(quantize, [(8, 6, 64), (1,)], 4) == [[WHOLE] * 4]


def test_a_sum_over_rows_has_one_order() -> None:
    backward = Axes.of("*r N!, *r? N!, *r N! -> *r N!, *r?+ N!")
    assert placements(backward, [(8, 64), (64,), (8, 64)], 4) == [[WHOLE] * 5]


def test_a_product_divides_what_passes_and_sums_what_it_contracts() -> None:
    assert placements(PRODUCT, [(8, 256), (8, 8), (16, 256), (16, 8)], 4) == [
        [WHOLE] * 5,
        [0, 0, 0, WHOLE, WHOLE],
        [SUM, 1, 1, 1, 1],
        [1, WHOLE, WHOLE, 0, 0],
    ]


def test_blocks_are_not_cut() -> None:
    """Two blocks of 32 for four devices."""
    assert [SUM, 1, 1, 1, 1] not in placements(PRODUCT, [(8, 64), (8, 2), (16, 64), (16, 2)], 4)


def test_pairs_of_a_parameter_are_not_divided() -> None:
    """A device with some of the pairs would need another number of them in its op."""
    assert placements(Axes.of("*r (g 2! i!) -> *r (g i!)"), [(8, 64)], 4) == [[WHOLE, WHOLE], [0, 0]]
