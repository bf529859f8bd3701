"""Pages of the site that live elsewhere in the repository, and the reference pages; run by mkdocs."""

from __future__ import annotations

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

JAX_EXTRAS = ("m3ops_jax.compile_for.compile_for",)
CORE = ("m3ops.op", "m3ops.target.Target", "m3ops.numerics.formats.MXFP8")


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


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name what they speak of by Sphinx's roles; here that is a link, if it is on the same page."""

    def named(role: re.Match[str]) -> str:
        place = re.search(rf'id="([\w.]*\.{role[1]})"', html)
        return f'<a href="#{place[1]}"><code>{role[1]}</code></a>' if place else f"<code>{role[1]}</code>"

    return re.sub(r":[a-z]+:<code>([\w.]+)</code>", named, html)


def _with_links_of_the_site(source: str) -> str:
    """A page's text; its links lead to the site's pages where the repository has files."""
    text = (ROOT / source).read_text()
    for path, page in PAGES.items():
        text = text.replace(f"]({path})", f"]({page})")
    return re.sub(r"\]\(docs/", "](", text)


def _references() -> dict[str, str]:
    """One page a package, one entry a public function."""
    pages = {}
    for package, title, extras in (("m3ops_jax", "JAX", JAX_EXTRAS), ("m3ops_torch", "PyTorch", ())):
        entries = [*(f"{package}.{name}.{name}" for name in _ops(package)), *extras]
        intro = f"The functions of `{package}`. The other front end has the same, with the same signatures."
        pages[package.removeprefix("m3ops_")] = _page(f"Reference: {title}", intro, entries)
    intro = "What the front ends and the ops share. It imports neither jax nor torch."
    return pages | {"core": _page("Reference: the core", intro, CORE)}


def _ops(package: str) -> Iterator[str]:
    """Names of the ops, each a file with a function of its name."""
    for path in sorted((ROOT / package).glob("[a-z]*.py")):
        if re.search(rf"^def {path.stem}\(", path.read_text(), re.MULTILINE) and path.stem != "compile_for":
            yield path.stem


def _page(title: str, intro: str, entries: Any) -> str:
    return "\n\n".join([f"# {title}", intro, *(f"::: {entry}" for entry in entries)]) + "\n"
