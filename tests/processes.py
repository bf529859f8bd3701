"""Two processes of PyTorch that talk to each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

WORLD = 2


def run(worker: str, device: str, folder: Path) -> None:
    """Runs a program of this folder as each of the processes, ``worker RANK DEVICE FOLDER``; fails if one does."""
    if device == "cuda" and torch.cuda.device_count() < WORLD:
        pytest.skip("fewer than two GPUs")
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, here / worker, str(rank), device, folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [each.communicate(timeout=300)[0] for each in workers]
    finally:
        for each in workers:
            each.kill()
    assert [each.returncode for each in workers] == [0] * WORLD, "\n".join(outputs)


def join(rank: int, device: str, folder: Path) -> None:
    """Called by each: makes them a group."""
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = {"cpu": "gloo", "cuda": "nccl"}[device]
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
