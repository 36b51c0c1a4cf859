"""What is installed and what installs it is named by its hash, its commit, its version; one place says which."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = (ROOT / "pyproject.toml").read_text()


def pins(path: Path) -> dict[str, str]:
    """Name and version with its marker, of a file of pinned requirements."""
    lines = re.sub(r" \\\n +--hash=\S+", "", path.read_text()).splitlines()
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2].partition(" ;")[0] for line in lines}


@pytest.mark.parametrize("name", ["requirements.txt", "tracing.txt", "backend.txt"])
def test_the_image_installs_by_hash_what_the_tests_ran_with(name: str) -> None:
    path = ROOT / "image" / name
    tested = pins(ROOT / "constraints.txt")
    installed = pins(path)
    assert {package: tested.get(package) for package in installed} == installed
    entries = re.split(r"\n(?=\w)", path.read_text())
    assert len(entries) == len(installed)
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_image_has_every_dependency() -> None:
    listed = re.search(r"\ndependencies = \[(.*?)\]\n", PROJECT, re.DOTALL)
    assert listed is not None
    wanted = {Requirement(each).name for each in re.findall(r'"(.*?)"', listed[1])}
    assert wanted - set(pins(ROOT / "image" / "requirements.txt")) == set()
    extra = re.search(r"\ntracing = \[(.*?)\]\n", PROJECT)
    assert extra is not None
    more = {Requirement(each).name for each in re.findall(r'"(.*?)"', extra[1])}
    assert (wanted | more) - set(pins(ROOT / "image" / "tracing.txt")) == set()
    assert set(re.findall(r'requires = \["(\w+)', PROJECT)) - set(pins(ROOT / "image" / "backend.txt")) == set()


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in [{"uses": job.get("uses", "./")}, *job.get("steps", [])]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_other_peoples_actions_are_named_by_their_commit(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert [each for each in used if not each.startswith("./") and not re.search(r"@[0-9a-f]{40}$", each)] == []


def test_the_workflows_run_the_sessions_of_ci_and_none_that_does_not_exist() -> None:
    there = set(re.findall(r"@nox\.session.*\n(?:@.*\n)*def (\w+)", (ROOT / "noxfile.py").read_text()))
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]
    matrix = [run.split() for run in check["cluster"]["strategy"]["matrix"]["sessions"]]
    run = {name for path in WORKFLOWS for step in steps(path) for name in _sessions(step.get("run", ""))}
    run |= {name for names in matrix for name in names}
    assert run - there == set()
    assert set(_sessions((ROOT / ".ci" / "run").read_text())) - run == set()


def _sessions(script: str) -> list[str]:
    return [
        name for names in re.findall(r"nox -s ([\w ]+?)(?: --.*)?$", script, re.MULTILINE) for name in names.split()
    ]


def test_the_last_stage_of_the_image_runs_nothing() -> None:
    """Without a shell it could not, and what it ran would be in the image."""
    *_, last = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"^([A-Z]+) ", last, re.MULTILINE)) == {"ARG", "LABEL", "COPY", "ENV", "ENTRYPOINT"}
