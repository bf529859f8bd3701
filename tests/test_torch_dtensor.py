"""DTensor: rows that are sharded stay where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_torch import tensors

from m3ops.axes import Axes
from m3ops.ops import OPS
from m3ops_torch._sharding import PARTIAL, REPLICATED, placements

WORKER = Path(__file__).with_name("dtensor_worker.py")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_processes(device: str, tmp_path: Path) -> None:
    """Bytes and collectives, counted by PyTorch's CommDebugMode: the checks are in the worker."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("fewer than two GPUs")
    torch.save({name: tensors(name, "cpu") for name in OPS}, tmp_path / "operands")
    paths = os.pathsep.join([str(WORKER.parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, str(rank), device, tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)


# --- Ways to divide, from the axes alone. The devices of an axis of a mesh are four. ----------------------------------

PRODUCT = Axes.of("*r (k 32!)+, *r k+, n (k 32!)+, n k+ -> *r n")
WHOLE, SUM = REPLICATED, PARTIAL


def test_rows_are_divided_and_a_weight_that_lacks_them_is_whole() -> None:
    norm = Axes.of("*r N!, *r? N! -> *r N!")
    assert placements(norm, [(8, 6, 64), (64,)], 4) == [[WHOLE] * 3, [0, 0, WHOLE], [1, 1, WHOLE]]
    assert placements(norm, [(8, 6, 64), (6, 64)], 4)[2] == [1, 1, 0]


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
