"""What the ops are tried with: named cases and the model's sizes. The families' own are in ``m3ops/ops/<family>``.

    case.py        what a case is, its golden digest, and how results are compared
    arrays.py      the arrays that cases are made of
    cases.py       all cases, golden.json their digests
    model.py       MiniMax-M3's sizes
    workload.py    what a workload is
    workloads.py   all workloads
    formulas.py    the ops as a user would write them
    discovery.py   finds the families' files

The tests run the cases on each backend, ``python -m m3ops selftest`` on any device. Nothing here imports a front end.
"""
