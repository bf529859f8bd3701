"""What .github and .pre-commit-config.yaml name exists, and says what pyproject.toml and requirements.txt say."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import m3ops
from m3ops.tools import cli

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def jobs(path: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load(path.read_text())["jobs"].values()


def commands(path: Path) -> Iterator[str]:
    """What a workflow's jobs run, for each value of a matrix."""
    for job in jobs(path):
        matrix = job.get("strategy", {}).get("matrix", {})
        for command in (step["run"] for step in job["steps"] if "run" in step):
            name = re.search(r"\$\{\{ matrix\.(\w+) \}\}", command)
            yield from (command.replace(name[0], value) for value in matrix[name[1]]) if name else [command]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_commands_that_exist(path: Path) -> None:
    """Those that a developer has, too: targets of the Makefile and scripts in .ci."""
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(path):
        if target := re.fullmatch(r"make ([\w-]+)", command):
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), command
        else:
            assert command.startswith(".ci/")
            assert os.access(ROOT / command.split()[0], os.X_OK), command
    assert list(commands(path))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_of_a_major_version(path: Path) -> None:
    used = [step["uses"] for job in jobs(path) for step in job["steps"] if "uses" in step]
    assert not [action for action in used if not re.fullmatch(r"(?:actions|pypa)/[\w-]+@(?:release/)?v\d+", action)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions(path: Path) -> None:
    """To read, unless a job publishes."""
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    asked = [job["permissions"] for job in jobs(path) if "permissions" in job]
    publishing = {"docs": [{"pages": "write", "id-token": "write"}], "release": [{"id-token": "write"}]}
    assert asked == publishing.get(path.stem, [])


def test_ci_runs_on_each_python_that_the_package_names() -> None:
    (job,) = jobs(ROOT / ".github" / "workflows" / "ci.yml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = job["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={tested[0]}"
    assert [name.rpartition(" ")[2] for name in project["classifiers"] if ":: Python ::" in name] == tested


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_commands_that_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = yaml.safe_load(path.read_text())
    for field in form.get("body", []):
        assert field["type"] == "markdown" or {"id", "type", "attributes"} <= field.keys()
    for argument in re.findall(r"python -m m3ops ([\w-]+)", path.read_text()):
        with pytest.raises(SystemExit) as caught:
            cli.main([argument] if argument.startswith("-") else [argument, "--help"])
        assert not caught.value.code
    capsys.readouterr()


def test_hooks_have_the_versions_of_the_tests() -> None:
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {pin for hook in repository["hooks"] for pin in hook["additional_dependencies"]} <= set(pins)


def test_citation_has_the_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize(
    ("tag", "heading", "project", "complaint"),
    [
        (f"v{m3ops.__version__}", f"{m3ops.__version__}, 2030-01-01", "[project.urls]", ""),
        (
            f"v{m3ops.__version__}",
            f"{m3ops.__version__} (unreleased)",
            "[project.urls]",
            "CHANGELOG.md has no heading",
        ),
        ("v9.9.9", "9.9.9, 2030-01-01", "[project.urls]", "m3ops/__init__.py does not have version 9.9.9"),
        (f"v{m3ops.__version__}", f"{m3ops.__version__}, 2030-01-01", "# [project.urls]", "has no [project.urls]"),
    ],
)
def test_a_tag_that_does_not_fit_is_not_released(
    tmp_path: Path, tag: str, heading: str, project: str, complaint: str
) -> None:
    """In a copy, with a ``make`` that only says what it was called with."""
    for name in (".ci/release", "m3ops/__init__.py", "bin/make"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text() if (ROOT / name).exists() else "")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n")
    (tmp_path / "pyproject.toml").write_text(f"{project}\n")
    (tmp_path / "bin" / "make").write_text("#!/bin/sh\necho made $1\n")
    for name in (".ci/release", "bin/make"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [str(tmp_path / ".ci" / "release"), tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert complaint in done.stderr
    assert (done.returncode, done.stdout) == ((1, "") if complaint else (0, "made package\n"))
