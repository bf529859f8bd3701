"""The command line: ``python -m m3ops bench`` and ``python -m m3ops selftest``.

What a subcommand needs is imported when it runs, so that ``--help`` stays free of jax and torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import m3ops

ABOUT = (
    "Check and time the ops of m3ops on this machine. The ops themselves are functions of m3ops_jax and m3ops_torch."
)
EXAMPLES = """examples:
  python -m m3ops selftest                                  are the results the published bytes?
  python -m m3ops bench --size large --op gemma_rmsnorm     how fast is one op on this GPU?
  python -m m3ops bench --help                              all ops, sizes and contenders
"""

SIZES = ("all", "large", "small", "padded", "gradient", "programs", "layers", "cpu")

Commands = Any
"""What ``add_subparsers`` gives; its class has no public name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns the exit status; without one it prints the help."""
    parser = argparse.ArgumentParser(
        prog="python -m m3ops",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"m3ops {m3ops.__version__}")
    parser.set_defaults(run=lambda _: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_bench(commands)
    _add_selftest(commands)
    args = parser.parse_args(argv)
    return int(args.run(args) or 0)


def _add_bench(commands: Commands) -> None:
    from m3ops.ops import OPS
    from m3ops.tools.bench.result import CONTENDERS

    about = "Check the ops' bytes and time them beside their rivals on this machine's GPU."
    bench = commands.add_parser("bench", help=about, description=about)
    bench.add_argument("--op", nargs="+", choices=tuple(OPS), default=tuple(OPS), metavar="OP", help=_list(OPS))
    sizes = "prefill, decode, with num_rows, backward, many ops in a program, a mixture of experts, the CPU too (all)"
    bench.add_argument("--size", choices=SIZES, default="all", help=sizes)
    bench.add_argument(
        "--contender", nargs="+", choices=CONTENDERS, default=CONTENDERS, metavar="NAME", help=_list(CONTENDERS)
    )
    bench.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="results (%(default)s)")
    bench.add_argument("--png", type=Path, default=Path("bench.png"), metavar="FILE", help="chart (%(default)s)")
    bench.set_defaults(run=_bench)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) + " (all)"


def _bench(args: argparse.Namespace) -> int:
    from m3ops.testing.workloads import WORKLOADS
    from m3ops.tools.bench.result import PARTS
    from m3ops.tools.bench.run import main as run

    chosen = [w for w in WORKLOADS if w.forward in args.op and args.size in ("all", w.kind)]
    parts = [part for part in PARTS if part == "host" or args.size in ("all", part)]
    return run(chosen, parts, args.contender, args.json, args.png)


def _add_selftest(commands: Commands) -> None:
    about = "Run named cases on this machine and compare the results with the published bytes."
    selftest = commands.add_parser("selftest", help=about, description=about)
    full = "every case; else a front end that compiles runs few, which cover every op, dtype, option and kernel"
    selftest.add_argument("--full", action="store_true", help=full)
    selftest.set_defaults(run=_selftest)


def _selftest(args: argparse.Namespace) -> int:
    from m3ops.tools.selftest import selftest

    return selftest(full=args.full)
