"""One of two processes that divide experts: ``python experts_worker.py RANK DEVICE FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import WORLD, join
from torch.distributed.tensor.debug import CommDebugMode

import m3ops_torch

DIVIDED = ("x", "w13", "w2", "wanted")


def main(rank: int, device: str, folder: Path) -> None:
    join(rank, device, folder)
    every = torch.load(folder / "layer", map_location=device)
    own = {name: t.chunk(WORLD)[rank] if name in DIVIDED else t for name, t in every.items()}
    w13, w2, *shared = (m3ops_torch.mxfp8_quantize(own[name]) for name in ("w13", "w2", "shared_w13", "shared_w2"))

    def layer(x: Any, *, shared_in_stack: bool = False) -> Any:
        given = x, m3ops_torch.moe_logits(own["x"], own["router"]), own["bias"], w13, w2
        beside = {"shared_in_stack": True} if shared_in_stack else {"shared": tuple(shared)}
        return m3ops_torch.moe_layer(*given, group=dist.group.WORLD, **beside)

    with CommDebugMode() as communication:
        got = layer(own["x"])
    assert communication.get_total_counts() == 2, communication.get_comm_counts()
    with pytest.raises(ValueError, match="shared_in_stack must be False with experts divided among devices"):
        layer(own["x"], shared_in_stack=True)
    results = [got, layer(m3ops_torch.mxfp8_quantize(own["x"]))]
    for result in results:
        assert torch.equal(result.view(torch.int16), own["wanted"].view(torch.int16))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
