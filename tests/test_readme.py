"""README and the pages in docs/: their snippets run as they stand, their commands and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rocm_lowering

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

# What a snippet's comments and text say it gives, by page: name, then shapes of its arrays, or platforms of an export.
PROMISED: dict[str, dict[str, Any]] = {
    "README.md": {
        "values": (16, 3072),
        "scales": (16, 96),
        "quantized": ((200, 3072), (256, 96)),
        "restored": (200, 3072),
    },
    "docs/jax.md": {
        "y": (64, 512),
        "normalized": (16, 128),
        "residual": (16, 128),
        "activation": (8, 256),
        "exported": ("cpu", "cuda", "rocm"),
    },
    "docs/pytorch.md": {"normalized": (64, 3072), "quantized": ((64, 3072), (64, 96))},
}


def given(value: Any) -> Any:
    if isinstance(value, tuple | MXFP8):
        return tuple(given(part) for part in value)
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


def test_every_promise_has_its_snippet() -> None:
    for page, promised in PROMISED.items():
        text = "".join(snippet for of, snippet in SNIPPETS if of == page)
        assert not [name for name in promised if not re.search(rf"\b{name}\b", text)]


def test_the_columns_of_a_tensor_parallel_weight() -> None:
    """The snippet with ``groups`` says that its result is that of the ordinary order of columns."""
    (snippet,) = (snippet for page, snippet in SNIPPETS if page == "docs/jax.md" and "by_shard" in snippet)
    names = run(snippet)
    ordinary = names["m3ops_jax"].swiglu_oai(names["h"] @ names["gate_up"])
    assert np.array_equal(np.asarray(names["activation"]).view(np.uint16), np.asarray(ordinary).view(np.uint16))


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
    """All in one process, whose imports are what takes time."""
    commands = [
        match for page in PAGES for match in re.findall(r"^    .*\bpytest (.*)$", page.read_text(), re.MULTILINE)
    ]
    collect = "import pytest, shlex, sys; sys.exit(max(map(pytest.main, map(shlex.split, sys.argv[1:]))))"
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


def test_the_tile_of_a_norm_is_decided_where_readme_says() -> None:
    plan, tiling = "m3ops/ops/gemma_rmsnorm/plan.py", "m3ops/planning/tiling.py"
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"follow `{plan}`, which calls `row_tiling`, to `{tiling}`" in text
    assert "row_tiling(" in (ROOT / plan).read_text()
    assert "def row_tiling(" in (ROOT / tiling).read_text()
