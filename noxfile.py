"""Every check of the project as a session; plain `nox` runs those that need nothing but Python (docs/index.md).

Each session installs dependency groups of pyproject.toml at the versions of constraints.txt. `cluster` and
`conformance` also need Go, or a control plane in KUBEBUILDER_ASSETS; without, they say what they did not run.
"""

import fnmatch
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
# Once more for a test that fails: on a busy machine the kernel may deliver what crosses a socket after the virtual
# clock, seeing every task wait, has jumped; a control plane of five processes has bad moments too.
RERUN = ("--reruns", "1", "-rR")
# The scenarios of the comparison wait in real time, four at once: on a busy machine a provisioner may come too late for
# one, or after a controller that it was ahead of elsewhere. Such a scenario is looked at again, alone and
# with longer waits.
SECOND_LOOKS = 2
UNHURRIED = ("--parallel", "1", "--time-scale", "3")
# Two at once, and whoever is done takes over from the other: much of a test's time is a wait for the kernel.
PARALLEL = ("-n", "2", "--dist", "worksteal")
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "protos", "tests"]

# A machine may forbid Python to keep its byte code, as images do whose installer made it. Here nothing has made it, and
# every provisioner that a session starts would compile for half a second, which no installed one does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parent
CONTROL_PLANE = ROOT / "tests" / "controlplane"
CONFORMANCE = ROOT / "tests" / "conformance"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)


def install(session: nox.Session, *groups: str, project: bool = True) -> None:
    """The groups, and the project itself, at pinned versions."""
    parts = nox.project.dependency_groups(PROJECT, *groups)
    session.install("-c", "constraints.txt", *parts, *(["-e", "."] if project else []))


def control_plane(session: nox.Session, what: str) -> str | None:
    """The folder with etcd, kube-apiserver and the others: KUBEBUILDER_ASSETS, or what tests/controlplane builds.

    The first build takes minutes; KUBERNETES=1.37 in the environment names another version than 1.36. None, and a word
    about what is not run, where a program is missing or nothing can be built.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if missing := [name for name in PROGRAMS if not (Path(assets) / name).exists()]:
            session.warn(f"NOT RUN: {what} (KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)})")
            return None
        return assets
    if not shutil.which("go"):
        session.warn(f"NOT RUN: {what} (no KUBEBUILDER_ASSETS, and no Go toolchain to build what it needs)")
        return None
    build = [CONTROL_PLANE / "build", os.environ.get("KUBERNETES", "1.36")]
    done = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        session.error("tests/controlplane/build failed")
    return done.stdout.strip()


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    install(session, "lint", project=False)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    install(session, "types", "sandbox")
    session.run("mypy", *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Who may import whom."""
    install(session, "layers", "sandbox")
    session.run("lint-imports", "--no-logo", *session.posargs)


@nox.session
def protos(session: nox.Session) -> None:
    """The generated messages are those of protos/csi.proto; `nox -s protos -- --write` makes them."""
    install(session, "protos")
    session.run("python", "protos/generate.py", *([] if "--write" in session.posargs else ["--check"]))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but those on a real control plane."""
    install(session, "test", "sandbox")
    session.run("pytest", "-m", "not cluster", *PARALLEL, *RERUN, *session.posargs)


@nox.session(python=PYTHONS)
def versions(session: nox.Session) -> None:
    """The same tests on every supported Python that is installed."""
    install(session, "test", "sandbox")
    session.run("pytest", "-m", "not cluster", *PARALLEL, *RERUN, *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Journeys on a real control plane, and csi-sanity against the sandbox's driver."""
    install(session, "test", "sandbox")
    assets = control_plane(session, "the tests on a real control plane")
    if assets is None:
        return
    session.run("pytest", "-m", "cluster", *RERUN, *session.posargs, env={"KUBEBUILDER_ASSETS": assets})


@nox.session
def conformance(session: nox.Session) -> None:
    """Compare with the Go external-provisioner; scenario names or globs may follow `--`."""
    what = "the comparison with the Go external-provisioner"
    assets = control_plane(session, what)
    if assets is None:
        return
    install(session, "conformance")
    command = [
        str(CONFORMANCE / "check"),
        "--provisioner",
        f"{Path(session.bin) / 'python'} -m csi_provisioner --csi-address={{sock}} --kubeconfig={{kubeconfig}}",
        "--proto",
        "protos/csi.proto",
        "--deviations",
        "tests/conformance/deviations.yaml",
    ]
    environment = {**os.environ, "KUBEBUILDER_ASSETS": assets, "PYTHON": str(Path(session.bin) / "python")}
    asked = session.posargs or _scenarios()
    if os.geteuid() != 0 and not session.posargs:
        rooted = [name for name in asked if "hostname:" in (CONFORMANCE / "scenarios" / f"{name}.yaml").read_text()]
        session.warn(f"NOT RUN: {', '.join(rooted)} (their processes get a host name of their own, which needs root)")
        asked = [name for name in asked if name not in rooted]
    counts, differing = _compared(command, asked, environment)
    for _ in range(SECOND_LOOKS):
        if not differing:
            break
        session.log(f"once more, one at a time: {', '.join(differing)}")
        good = Counter({word: counts[word] for word in ("PASS", "COSMETIC", "INTENDED")})
        counts, differing = _compared([*command, *UNHURRIED], differing, environment)
        counts += good
    print(", ".join(f"{counts[word]} {word}" for word in ("PASS", "COSMETIC", "INTENDED", "SPEC", "MISSING")))
    if differing or not counts:
        session.error("the comparison found differences" if differing else "the comparison did not come to its end")


def _compared(command: list[str], asked: Sequence[str], environment: dict[str, str]) -> tuple[Counter[str], list[str]]:
    """Runs it and shows what it prints; how many scenarios ended how, and which of them differ from what is meant.

    A deviation for several scenarios can only be missed where all of them ran.
    """
    counts: Counter[str] = Counter()
    differing = []
    ran = {name for pattern in asked for name in fnmatch.filter(_scenarios(), pattern)}
    with subprocess.Popen(
        [*command, *asked], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as run:
        for line in run.stdout or ():
            if summary := re.fullmatch(r"(\d+ PASS, .*)\n", line):
                counts.update({word: int(count) for count, word in re.findall(r"(\d+) (\w+)", summary[1])})
                continue
            print(line, end="", flush=True)
            if found := re.match(r"(?:SPEC|MISSING) +(\S+)", line):
                differing.append(found[1])
            elif found := re.match(r"UNUSED +deviation that did not occur: (\S+)", line):
                differing += [found[1]] if ran.issuperset(fnmatch.filter(_scenarios(), found[1])) else []
    return counts, list(dict.fromkeys(differing))


@nox.session
def sandbox(session: nox.Session) -> None:
    """A cluster, a driver and the provisioner in one process."""
    install(session, "sandbox")
    session.run("python", "-m", "sandbox", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measurements; what they are, their output says."""
    install(session, "test", "sandbox")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew: one set of versions for all supported Pythons."""
    session.install("uv")
    session.run(
        *(
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            PYTHONS[0],
            "--no-header",
            "--no-annotate",
        ),
        *("--upgrade", "--all-extras", "--group", "dev", "pyproject.toml", "--output-file", "constraints.txt"),
    )


def _scenarios() -> list[str]:
    return [golden.stem for golden in (CONFORMANCE / "golden").glob("*.json")]
