"""What is built from pyproject.toml: the right files, one version, and extras that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

import m3ops
import m3ops_jax

ROOT = Path(__file__).parents[1]
PACKAGES = ("m3ops", "m3ops_jax", "m3ops_torch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def sources() -> set[str]:
    """The files of the packages, compiled ones aside."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}


def test_wheel_has_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == sources()
    assert {"m3ops/testing/golden.json", *(f"{package}/py.typed" for package in PACKAGES)} <= sources()


def test_one_version(metadata: Message) -> None:
    assert metadata["Version"] == m3ops.__version__
    others = [p for p in (ROOT / "pyproject.toml", *ROOT.glob("m3ops*/**/*.py")) if m3ops.__version__ in p.read_text()]
    assert others == [ROOT / "m3ops" / "__init__.py"]


def test_the_core_needs_no_framework(metadata: Message) -> None:
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split("[^a-z_]", line.lower().replace("-", "_"))[0] for line in core} == {"ml_dtypes", "numpy", "triton"}


def test_extras(metadata: Message) -> None:
    extras = metadata.get_all("Provides-Extra", [])
    assert set(extras) == {"jax", "flax", "torch", "cuda", "rocm", "export", "bench", "notebooks"}


def _python(code: str) -> str:
    """What code prints in a new process."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_modules_are_reached_from_their_package() -> None:
    """Without importing them by name; flax comes when it is asked for."""
    assert _python("import m3ops_torch; print(m3ops_torch.nn.GemmaRMSNorm.__name__)") == "GemmaRMSNorm"
    assert _python("import m3ops_torch; print(m3ops_torch.compat.vllm.__name__)") == "m3ops_torch.compat.vllm"
    flax = "import sys, m3ops_jax; print('flax' in sys.modules, m3ops_jax.nnx.DenseMLP.__name__)"
    assert _python(flax) == "False DenseMLP"
    assert not hasattr(m3ops_jax, "nn")


@pytest.mark.parametrize(
    ("module", "needs", "missing"),
    [("m3ops_jax", "JAX", "jax"), ("m3ops_torch", "PyTorch", "torch"), ("m3ops_jax.nnx", "flax", "flax")],
)
def test_a_missing_module_names_the_extra_that_has_it(module: str, needs: str, missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None\ntry: import {module}\nexcept ImportError as e: print(e)"
    assert _python(code) == f"{module} needs {needs}: in a checkout, pip install '.[{missing}]'"


def test_the_versions_tested_with_are_in_the_ranges() -> None:
    """requirements.txt pins what the tests run with; an extra that excludes it would be untested."""
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for wanted in (Requirement(text) for requirements in lists for text in requirements):
        assert wanted.name not in pins or wanted.specifier.contains(pins[wanted.name]), wanted


def test_the_groups_and_the_extras_are_what_the_tests_run_with() -> None:
    """requirements.txt has the same in versions, and three that others need: JAX, and gfloat, which gives no bounds."""
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = data["dependency-groups"]
    assert [part["include-group"] for part in groups["dev"]] == [name for name in groups if name != "dev"]
    grouped = {name for group, names in groups.items() if group != "dev" for name in names}
    lists = [data["project"]["dependencies"], *data["project"]["optional-dependencies"].values()]
    extras = {Requirement(text).name for requirements in lists for text in requirements}
    assert grouped - pinned == {"packaging", "pyyaml"}  # what pins need anyway
    assert pinned - grouped - extras == {"jaxlib", "array-api-compat", "more-itertools"}


def test_sdist_builds_the_same_wheel_and_holds_the_tests(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = Path(path.removesuffix(".tar.gz"))
    assert (unpacked / "tests" / "test_package.py").read_bytes() == Path(__file__).read_bytes()
    (again,) = WheelBuilder(str(unpacked)).build(directory=str(tmp_path / "again"))
    with zipfile.ZipFile(again) as archive:
        assert {i.filename: i.CRC for i in archive.infolist()} == {i.filename: i.CRC for i in wheel.infolist()}
