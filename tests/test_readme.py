"""README and the pages in docs/: their snippets run as they stand, their commands and links exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import rocm_lowering
import torch
from torch import nn

import m3ops_jax
import m3ops_torch
from m3ops.mxfp8 import MXFP8
from m3ops.tools import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "m3ops" / "numerics" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SOURCES = ("m3ops", "m3ops_jax", "m3ops_torch", "tests")
SNIPPETS = [
    (name, snippet)
    for name, page in zip(NAMES, PAGES, strict=True)
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]

# What a snippet's comments and text say it gives, by page: name, then shapes of its arrays, platforms of an export, or
# a number.
PROMISED: dict[str, dict[str, Any]] = {
    "README.md": {"product": (16, 512)},
    "docs/choosing.md": {
        "normalized": ((200, 6144), (256, 192)),
        "activation": ((200, 3072), (256, 96)),
        "restored": (200, 3072),
        "along_n": ((64, 96), (64, 3)),
        "along_rows": ((96, 64), (96, 2)),
        "of_x": (64, 128),
        "of_w": (96, 128),
        "grouped": ((200, 3072), (640, 96)),
        "product": (200, 64),
    },
    "docs/jax.md": {
        "y": (64, 512),
        "after": (8, 64),
        "out": (8, 64),
        "first": ((64, 3072), (64, 96)),
        "normalized": (16, 128),
        "residual": (16, 128),
        "exported": ("cpu", "cuda", "rocm"),
    },
    "docs/many_gpus.md": {"equal": 1},
    "docs/performance.md": {"x": (4, 64), "residual": (4, 64)},
    "docs/pytorch.md": {
        "changed": (16,),
        "first": ((64, 3072), (64, 96)),
        "normalized": (64, 3072),
        "again": ((64, 3072), (64, 96)),
        "longer": ((32, 128), (32, 4)),
    },
    "docs/rocm.md": {"launches": 1},
}


def given(value: Any) -> Any:
    if isinstance(value, tuple | MXFP8):
        return tuple(given(part) for part in value)
    if isinstance(value, int):
        return value
    return value.platforms if hasattr(value, "platforms") else tuple(value.shape)


def run(snippet: str) -> dict[str, Any]:
    """The names that a snippet defines."""
    if "compile_for" in snippet:
        rocm_lowering.install_stub()
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SNIPPETS)])
def test_snippet(page: str, snippet: str) -> None:
    names, promised = run(snippet), PROMISED[page]
    for name in names.keys() & promised.keys():
        assert given(names[name]) == promised[name]


def test_the_first_snippets_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    for page, snippet in SNIPPETS:
        if page == "README.md":
            run(snippet)
            (promised,) = re.findall(r"^print\(.*  # (.*)\n", snippet, re.MULTILINE)
            assert capsys.readouterr().out == f"{promised}\n"


def test_every_promise_has_its_snippet() -> None:
    for page, promised in PROMISED.items():
        text = "".join(snippet for of, snippet in SNIPPETS if of == page)
        assert not [name for name in promised if not re.search(rf"\b{name}\b", text)]


def snippet_with(page: str, text: str) -> str:
    (found,) = (snippet for of, snippet in SNIPPETS if of == page and text in snippet)
    return found


@pytest.mark.parametrize(
    ("page", "text"),
    [("docs/jax.md", "losses"), ("docs/pytorch.md", "class MLP"), ("docs/pytorch.md", "def mixture(")],
)
def test_models_learn_as_their_comments_say(page: str, text: str) -> None:
    snippet = snippet_with(page, text)
    first, last = map(float, re.findall(r"# ([\d.]+) at first, below ([\d.]+) at the end", snippet)[0])
    losses = run(snippet)["losses"]
    assert round(losses[0], 1) == first
    assert losses[-1] < last


def test_the_columns_of_a_tensor_parallel_weight() -> None:
    """Their order changes no byte of the activation, and the layer communicates once."""
    names = run(snippet_with("docs/jax.md", "by_shard"))
    swiglu_oai, h, gate_up = names["m3ops_jax"].swiglu_oai, names["h"], names["gate_up"]
    ordinary, by_shard = swiglu_oai(h @ gate_up), swiglu_oai(h @ names["by_shard"](gate_up), groups=names["T"])
    assert np.array_equal(np.asarray(by_shard).view(np.uint16), np.asarray(ordinary).view(np.uint16))
    compiled = names["mlp"].lower(h, *names["sharded"]).compile().as_text()
    found = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", compiled)
    assert found == ["all-reduce"] if names["T"] > 1 else not found


def test_rows_that_count_are_updated() -> None:
    changed = run(snippet_with("docs/pytorch.md", "layer(x, residual, count)"))["changed"]
    assert changed.tolist() == [True] * 10 + [False] * 6


def test_a_model_of_transformers_keeps_its_parameters() -> None:
    """With modules that have the names, attributes and formulas of MiniMax-M3's in Transformers."""

    class MiniMaxM3VLRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.randn(64)), 1e-5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)

    class MiniMaxM3VLDenseMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj, self.down_proj = nn.Linear(64, 256, bias=False), nn.Linear(128, 64, bias=False)
            self.swiglu_alpha, self.swiglu_limit = 1.5, 0.25

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
            gate, up = gate.clamp(max=self.swiglu_limit), up.clamp(-self.swiglu_limit, self.swiglu_limit)
            return self.down_proj((up + 1.0) * gate * torch.sigmoid(gate * self.swiglu_alpha))

    torch.manual_seed(0)
    model, x = nn.Sequential(MiniMaxM3VLRMSNorm(), MiniMaxM3VLDenseMLP()), torch.randn(5, 64)
    before, parameters = model(x).detach(), dict(model.named_parameters())
    swapped = run(snippet_with("docs/pytorch.md", "def swap("))["swap"](model)
    assert [type(module).__name__ for module in swapped] == ["GemmaRMSNorm", "DenseMLP"]
    assert all(p is parameters[name] for name, p in swapped.named_parameters())
    assert len(dict(swapped.named_parameters())) == len(parameters)
    # 2**-20: each of some ten fp32 operations and three sums of 128 is half a unit off, 2**-24 of what is added.
    assert (swapped(x) - before).abs().max() <= 2.0**-20 * before.abs().max()


@pytest.mark.parametrize("name", ["choosing", "jax", "pytorch", "rocm"])
def test_a_guide_begins_with_a_program(name: str) -> None:
    assert "```python" in (ROOT / "docs" / f"{name}.md").read_text().partition("\n## ")[0]


def test_there_is_a_snippet_for_each_front_end() -> None:
    readme = "".join(snippet for page, snippet in SNIPPETS if page == "README.md")
    assert {"m3ops_jax", "m3ops_torch"} <= set(re.findall(r"\bm3ops_\w+", readme))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_targets_extras_and_variables_exist(page: Path) -> None:
    """CI runs ``make lint``, ``demo`` and ``test-all``; a page names nothing that is not there."""
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for target, variables in re.findall(r"(?:^    |`)make ([\w-]+)((?: [A-Z]+=\S+?)*)(?=[ `\n])", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert not [name for name in re.findall(r"([A-Z]+)=", variables) if f"\n{name} ?=" not in makefile]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"(?:m3ops|\.)\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    for variable in re.findall(r"\bM3OPS_\w+", text):
        assert any(variable in path.read_text() for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    monkeypatch.setattr(cli, "_bench", lambda _: 0)
    monkeypatch.setattr(cli, "_selftest", lambda _: 0)
    for arguments in re.findall(r"python -m m3ops ([^`#\n]*)", text):
        assert cli.main(arguments.split()) == 0
    for path, arguments in re.findall(r"python ((?:tests|docs|notebooks)/[\w/]+\.py)([^`#\n]*)", text):
        source = (ROOT / path).read_text()
        assert not [option for option in re.findall(r"--[\w-]+", arguments) if f'"{option}"' not in source]


def test_commands_of_pytest_select_something() -> None:
    """All in one process, whose imports are what takes time; it takes the machine for one with a GPU."""
    commands = [
        match for page in PAGES for match in re.findall(r"^    .*\bpytest (.*)$", page.read_text(), re.MULTILINE)
    ]
    collect = (
        "import pytest, shlex, sys, torch; torch.cuda.is_available = lambda: True; "
        "sys.exit(max(map(pytest.main, map(shlex.split, sys.argv[1:]))))"
    )
    arguments = [f"--collect-only -q {command.partition(' #')[0]}" for command in commands]
    done = subprocess.run([sys.executable, "-c", collect, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(commands) >= 4


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_exist(page: Path) -> None:
    """Those of an op to be added, ``my_op``, do not yet."""
    for path in re.findall(r"`((?:m3ops|m3ops_jax|m3ops_torch|tests|notebooks|docs)/[\w/.*<>]*)`", page.read_text()):
        assert "my_op" in path or list(ROOT.glob(re.sub("<.*?>", "*", path))), path


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_versions_on_the_cpu_are_those_that_the_tests_run_with() -> None:
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    oldest = {name.lower(): version for name, version in re.findall(r"^(JAX|TRITON) \?= (.*)$", makefile, re.MULTILINE)}
    for line, versions in (("CPU", pinned), ("CPU, the JAX tests", pinned | oldest)):
        (row,) = re.findall(rf"^\| {line} \| (.*) \|$", readme, re.MULTILINE)
        said = dict(re.findall(r"(jax|jax-triton|torch|triton) ([\d.]+)", row))
        assert said == {name: versions[name] for name in said}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"jax>={oldest['jax']}" in extras["jax"]


def test_the_tile_of_a_norm_is_decided_where_contributing_says() -> None:
    plan, tiling = "m3ops/ops/gemma_rmsnorm/plan.py", "m3ops/planning/tiling.py"
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert f"follow `{plan}`, which calls `row_tiling`, to `{tiling}`" in text
    assert "row_tiling(" in (ROOT / plan).read_text()
    assert "def row_tiling(" in (ROOT / tiling).read_text()


@pytest.mark.parametrize("front_end", [m3ops_jax, m3ops_torch], ids=lambda module: module.__name__)
def test_signatures_are_those_of_the_functions(front_end: Any) -> None:
    """But for ``num_rows`` and ``out``, which nearly every op has, and what the front ends call the devices."""
    (block,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    said = dict(re.findall(r"^(\w+)\((.*?)\)$", block, re.MULTILINE | re.DOTALL))
    assert said.keys() == {name for name in m3ops_torch.__all__ if inspect.isfunction(getattr(m3ops_torch, name))}
    for name, text in said.items():
        signature = inspect.signature(getattr(front_end, name))
        left_out = ("num_rows", "out", "axis_name", "group")
        parameters = [p for p in signature.parameters.values() if p.name not in left_out]
        words = [p.name if p.default is p.empty else f"{p.name}={_default(p.default)}" for p in parameters]
        positional = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
        if positional < len(words):
            words.insert(positional, "*")
        assert " ".join(text.split()) == ", ".join(words)


def _default(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "bfloat16" if value in (jnp.bfloat16, torch.bfloat16) else repr(value)
