"""What stands above the front ends: the command line, the self-test, the benchmark, and the runner of the cases.

Nothing else in m3ops may import m3ops_jax or m3ops_torch, and these do it when they run.
"""
