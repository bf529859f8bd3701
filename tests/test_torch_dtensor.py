"""DTensor: rows that are sharded stay where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_torch import tensors

from m3ops.ops import OPS

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
