"""Pages of the site that live elsewhere in the repository, and the reference pages; run by mkdocs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "m3ops/numerics/README.md": "numerics.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Where a file of the repository is on the site."""

PACKAGES = {
    "m3ops_jax": (
        "JAX",
        (
            "m3ops_jax.layers.moe_layer",
            "m3ops_jax.layers.moe_weights",
            "m3ops_jax.layers.mxfp8_grouped_linear",
            "m3ops_jax.layers.mxfp8_linear",
            "m3ops_jax.compile_for.compile_for",
            "m3ops_jax.nnx.GemmaRMSNorm",
            "m3ops_jax.nnx.DenseMLP",
            "m3ops_jax.nnx.MoE",
        ),
    ),
    "m3ops_torch": (
        "PyTorch",
        (
            "m3ops_torch.layers.moe_layer",
            "m3ops_torch.layers.moe_weights",
            "m3ops_torch.layers.mxfp8_grouped_linear",
            "m3ops_torch.layers.mxfp8_linear",
            "m3ops_torch.nn.GemmaRMSNorm",
            "m3ops_torch.nn.MoE",
            "m3ops_torch.nn.SwigluOAI",
            "m3ops_torch.compat.vllm",
        ),
    ),
}
"""For each front end its framework, and what stands on its reference page after the ops."""

WIDE, SHORT = 5, 45
"""From how many columns on a table is wide, and up to how many characters a cell is short."""

CORE = (
    "m3ops.checkpoint",
    "m3ops.op",
    "m3ops.plan",
    "m3ops.axes",
    "m3ops.array",
    "m3ops.target.Target",
    "m3ops.rope.rope_cos_sin",
    "m3ops.rope.Yarn",
)


@event_priority(100)  # before the plugin that turns notebooks into pages
def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_with_links_of_the_site(source)))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        path = f"notebooks/{notebook.name}"
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    for page, text in _references().items():
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from a page to notebooks, which in the repository lie beside docs/."""
    return markdown.replace("](../notebooks/", "](notebooks/")


def on_page_content(html: str, **_: Any) -> str:
    """Finishes a page: wide tables of numbers keep their lines, and names are links."""
    return _names_as_links(re.sub(r"<table>.*?</table>", _numbers_in_one_line, html, flags=re.DOTALL))


def _numbers_in_one_line(table: re.Match[str]) -> str:
    """A table with many short cells is not broken into lines: on a narrow screen it scrolls, row by row readable."""
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table[0].split("</tr>")]
    longest = max(len(re.sub(r"<[^>]+>", "", cell)) for row in rows for cell in row)
    wide = max(map(len, rows)) >= WIDE and longest <= SHORT
    return f'<div class="numbers">{table[0]}</div>' if wide else table[0]


def _names_as_links(html: str) -> str:
    """Docstrings name what they speak of by Sphinx's roles; here that is a link, if it is on the same page."""

    def named(role: re.Match[str]) -> str:
        place = re.search(rf'id="([\w.]*\.{role[1]})"', html)
        return f'<a href="#{place[1]}"><code>{role[1]}</code></a>' if place else f"<code>{role[1]}</code>"

    return re.sub(r":[a-z]+:<code>([\w.]+)</code>", named, html)


def _with_links_of_the_site(source: str) -> str:
    """A page's text; its links lead to the site's pages where the repository has files."""
    text = (ROOT / source).read_text()
    for path, page in PAGES.items():
        text = re.sub(rf"\]\({re.escape(path)}(?=[)#])", f"]({page}", text)
    return re.sub(r"\]\(docs/", "](", text)


def _references() -> dict[str, str]:
    """One page a package, one entry a public function."""
    pages = {}
    for package, (framework, extras) in PACKAGES.items():
        ops = dict(_ops(package))
        entries = [f"{package}._mxfp8.MXFP8", *ops, *extras]
        intro = f"The functions of `{package}`. The other front end has the same, with the same signatures."
        rows = [f"| [`{path.rpartition('.')[2]}`](#{path}) | {line} |" for path, line in ops.items()]
        intro += "\n\n" + "\n".join(["| function | what it gives |", "|---|---|", *rows])
        links = [f"[`{re.sub(r'(\w+)\.\1$', r'\1', path)}`](#{path})" for path in extras]
        intro += f"\n\nBeside them there are {', '.join(links)}."
        pages[package.removeprefix("m3ops_")] = _page(f"Reference: {framework}", intro, entries)
    intro = "What the front ends and the ops share. It imports neither jax nor torch."
    return pages | {"core": _page("Reference: the core", intro, CORE)}


def _ops(package: str) -> Iterator[tuple[str, str]]:
    """The functions in the files that are generated from the ops, with the first paragraph of each one's docstring."""
    for family in sorted(path.name for path in (ROOT / "m3ops" / "ops").iterdir() if (path / "spec.py").exists()):
        for node in ast.parse((ROOT / package / f"{family}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef):
                paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
                yield f"{package}.{family}.{node.name}", " ".join(paragraph.split())


def _page(title: str, intro: str, entries: Any) -> str:
    return "\n\n".join([f"# {title}", intro, *(f"::: {entry}" for entry in entries)]) + "\n"
