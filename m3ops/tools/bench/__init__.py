"""``python -m m3ops bench``: workloads x contenders, bytes checked before anything is timed.

    result.py       what is measured and how it is written down (the JSON schema)
    run.py          the loop over workloads and contenders
    torch_side.py   contenders that PyTorch runs, timed by device events and in graphs
    jax_side.py     contenders that JAX runs, timed by the wall clock over asynchronous calls
    timing.py       the timers themselves, and why each is sound
    gradient.py     backward as either framework differentiates it, and Liger's
    program.py      programs of many ops, whose bytes are not checked again
    layer.py        a mixture of experts of MiniMax-M3's size
    kernel.py       small Triton kernels to compare with
    check.py        bytes against the specification
    table.py, plot.py                what is shown

The formulas that torch.compile and jax.jit fuse are in m3ops/testing/formulas.py. Nothing here imports jax, torch or a
front end before a function that needs it runs.
"""
