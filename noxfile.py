"""Every check of the project as a session; plain `nox` runs those that need nothing but Python (CONTRIBUTING.md).

Each session installs dependency groups of pyproject.toml at the versions of constraints.txt. `cluster` and
`conformance` also need Go, or a control plane in KUBEBUILDER_ASSETS; without, they say what they did not run. Where
everything is meant to be there, NOT_RUN=error in the environment makes a failure of that.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import nox

nox.needs_version = ">=2025.2"
# Once more for a test that fails beside a control plane of five processes, or a browser: those have bad moments.
RERUN = ("--reruns", "1", "-rR")
SANDBOX = ("-m", "not cluster and not browser and not histories")
# The scenarios of the comparison wait in real time, four at once: on a busy machine a provisioner may come too late for
# one, or after a controller that it was ahead of elsewhere. Such a one is looked at again, alone, with longer waits.
SECOND_LOOKS = 2
UNHURRIED = ("--parallel", "1", "--time-scale", "3")
# Two at once, and whoever is done takes over from the other: much of a test's time is a wait for the kernel.
PARALLEL = ("-n", "2", "--dist", "worksteal")
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "protos", "tests"]  # and what an archive of the project has not:
nox.options.sessions += ["histories"] if Path("tests/journal").exists() else []

# A machine may forbid Python to keep its byte code, as images do whose installer made it. Here nothing has made it, and
# every provisioner that a session starts would compile for half a second, which no installed one does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parent
CONTROL_PLANE = ROOT / "tests" / "controlplane"
CONFORMANCE = ROOT / "tests" / "conformance"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
DIST = ROOT / "dist"
# What the roles of kustomize/ give is shown on a real control plane in these; they are a session of their own.
RIGHTS = (
    "tests/rights",
    "tests/charts",
    "tests/faults/test_rights.py",
    "tests/cluster/test_kustomize.py",
    "tests/cluster/test_controlplane.py::test_the_provisioner_has_its_own_rights_and_no_more",
    "tests/kube/test_client_cluster.py::test_an_account_without_a_right_is_told_the_kustomization",
)
LICENCES = (
    "Apache Software License",
    "Apache-2.0",
    "Apache-2.0 AND BSD-2-Clause",
    "BSD License",
    "BSD-3-Clause",
    "MIT",
    "MIT AND PSF-2.0",
    "MIT License",
    "MIT OR Apache-2.0",
    "PSF-2.0",
)
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"
PYTHONS = nox.project.python_versions(PROJECT)
PROMTOOL = "github.com/prometheus/prometheus/cmd/promtool@v0.316.0"


def install(session: nox.Session, *groups: str, project: bool = True) -> None:
    """The groups, and the project itself, at pinned versions."""
    parts = nox.project.dependency_groups(PROJECT, *groups)
    session.install("-c", "constraints.txt", *parts, *(["-e", ".[tracing]"] if project else []))


def not_run(session: nox.Session, what: str, why: str) -> NoReturn:
    """Ends the session, which then counts as skipped, not as passed."""
    end = session.error if os.environ.get("NOT_RUN") == "error" else session.skip
    end(f"NOT RUN: {what} ({why})")


def control_plane(session: nox.Session, what: str) -> str:
    """The folder with etcd, kube-apiserver and the others: KUBEBUILDER_ASSETS, or what tests/controlplane builds.

    The first build takes minutes; KUBERNETES=1.37 in the environment names another version than 1.36. Where a program
    is missing or nothing can be built, `what` is not run.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if missing := [name for name in PROGRAMS if not (Path(assets) / name).exists()]:
            not_run(session, what, f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}")
        return assets
    if not shutil.which("go"):
        not_run(session, what, "no KUBEBUILDER_ASSETS, and no Go toolchain to build what it needs")
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
    install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Who may import whom."""
    install(session, "layers")
    session.run("lint-imports", "--no-logo", *session.posargs)


@nox.session
def protos(session: nox.Session) -> None:
    """The generated messages are those of protos/csi.proto; `nox -s protos -- --write` makes them."""
    install(session, "protos")
    session.run("python", "protos/generate.py", *([] if "--write" in session.posargs else ["--check"]))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but those on a real control plane, in a browser, or of random histories."""
    install(session, "test")
    session.run("pytest", *SANDBOX, *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
def versions(session: nox.Session) -> None:
    """The same tests on every supported Python that is installed."""
    install(session, "test")
    session.run("pytest", *SANDBOX, *PARALLEL, *session.posargs)


@nox.session
def histories(session: nox.Session) -> None:
    """2,000 random histories of the journal, in a world that is all in memory."""
    install(session, "test")
    session.run("pytest", "-m", "histories", *PARALLEL, "tests/journal", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Journeys on a real control plane, and csi-sanity against the sandbox's driver; not what `rights` runs."""
    others = [f"--deselect={path}" for path in RIGHTS]
    _on_control_plane(session, "the tests on a real control plane", *(session.posargs or others))


@nox.session
def rights(session: nox.Session) -> None:
    """On a real control plane: the roles of kustomize/ are enough and no more, and a missing right is told."""
    _on_control_plane(session, "the tests of rights", *RIGHTS, *session.posargs)


def _on_control_plane(session: nox.Session, what: str, *arguments: str) -> None:
    install(session, "test")
    assets = control_plane(session, what)
    session.run("pytest", "-m", "cluster", *RERUN, *arguments, env={"KUBEBUILDER_ASSETS": assets})


@nox.session(venv_backend="none")
def kustomize(session: nox.Session) -> None:
    """What kustomize/ has builds."""
    assets = control_plane(session, "the builds of kustomize/")
    for folder in sorted(file.parent for file in (ROOT / "kustomize").rglob("kustomization.yaml")):
        built = session.run(f"{assets}/kubectl", "kustomize", str(folder), external=True, silent=True)
        session.log(f"{folder.relative_to(ROOT)}: {str(built).count('kind: ')} objects and references")


@nox.session
def conformance(session: nox.Session) -> None:
    """Compare with the Go external-provisioner; scenario names or globs may follow `--`, and before them
    `--newer-driver`, whose answers have what no version of CSI has."""
    what = "the comparison with the Go external-provisioner"
    assets = control_plane(session, what)
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
    given = [word for word in session.posargs if word != "--newer-driver"]
    python = ROOT / "tests" / "newer_driver.py" if len(given) < len(session.posargs) else Path(session.bin) / "python"
    path = os.pathsep.join([session.bin, os.environ["PATH"]])  # which Python that file is run with
    environment = {**os.environ, "KUBEBUILDER_ASSETS": assets, "PYTHON": str(python), "PATH": path}
    asked = given or _scenarios()
    if os.geteuid() != 0 and not given:
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
def wheel(session: nox.Session) -> None:
    """The wheel, in dist/: two builds, in two folders, of files with other times and modes, are the same bytes."""
    session.install("--require-hashes", "-r", "image/backend.txt")
    built = []
    for number in (1, 2):
        folder = Path(session.create_tmp()).resolve() / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "csi_provisioner", folder / "csi_provisioner", ignore=shutil.ignore_patterns("*.pyc"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        for file in filter(Path.is_file, folder.rglob("*")):
            file.chmod(0o600 if number == 1 else 0o664)
            os.utime(file, (number * 10**8, number * 10**8))
        with session.chdir(folder):
            session.run("hatchling", "build", "--target", "wheel")
        built += (folder / "dist").glob("*.whl")
    if len({path.read_bytes() for path in built}) > 1:
        session.error(f"{built} differ")
    DIST.mkdir(exist_ok=True)
    session.log(f"twice the same bytes: {shutil.copy(built[0], DIST)}")


def _product(session: nox.Session) -> str:
    """A Python of its own, with what the image has and nothing else."""
    python = Path(session.create_tmp()).resolve() / "product"
    session.run("uv", "venv", "--quiet", "--clear", "--python", "python", str(python))
    into = ("uv", "pip", "install", "--quiet", "--python", str(python))
    session.run(*into, "--require-hashes", "--only-binary", ":all:", "-r", "image/requirements.txt")
    session.run(*into, "--no-deps", ".")
    return str(python / "bin" / "python")


@nox.session
def licences(session: nox.Session) -> None:
    """What the image has of other people is under licences that allow it."""
    install(session, "licences", project=False)
    allowed = f"--allow-only={';'.join(LICENCES)}"
    session.run("pip-licenses", f"--python={_product(session)}", "--with-system", "--order=license", allowed)


@nox.session
def sbom(session: nox.Session) -> None:
    """What the wheel needs, as CycloneDX in dist/sbom.cdx.json: each component with its version, place and licence."""
    install(session, "sbom", project=False)
    DIST.mkdir(exist_ok=True)
    bom = DIST / "sbom.cdx.json"
    given = ("--pyproject=pyproject.toml", "--output-reproducible", "--validate", f"--output-file={bom}")
    python = _product(session)
    session.run("cyclonedx-py", "environment", *given, python)
    said = json.loads(bom.read_text())
    components = said["components"]
    # pyproject.toml leaves the version to the code.
    asked = (python, "-c", "import csi_provisioner; print(csi_provisioner.__version__)")
    version = session.run(*asked, silent=True, external=True)
    said["metadata"]["component"]["version"] = str(version).strip()
    bom.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
    if bare := [one["name"] for one in components if not all(one.get(key) for key in ("version", "purl", "licenses"))]:
        session.error(f"without version, place or licence: {', '.join(bare)}")
    session.log(f"{bom}: {len(components)} components")


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what the image has and of what builds it; asks the package index."""
    install(session, "audit", project=False)
    asked = session.run("python", "image/audit.py", *session.posargs, success_codes=[0, 75], silent=True)
    session.log(str(asked).strip())
    if "nobody could be asked" in str(asked):
        not_run(session, "the audit", "the package index does not tell of vulnerabilities")


@nox.session
def image(session: nox.Session) -> None:
    """Both variants of the image, built and started; see docs/how-to/image.md."""
    missing = [name for name in ("buildah", "debootstrap", "setpriv", "unshare") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        not_run(session, "the image", f"needs root and {', '.join(missing or ['all of its rights'])}")
    install(session, "test", "nox")
    for architecture in ("x86_64", "aarch64"):
        wheels = ("uv", "pip", "install", "--quiet", "--dry-run", "--target", session.create_tmp(), "--require-hashes")
        there = ("--only-binary", ":all:", "--python-version", "3.13", "--python-platform")
        session.run(*wheels, "-r", "image/requirements.txt", *there, f"{architecture}-manylinux_2_28")
    session.run("image/mounted", "pytest", "-s", *RERUN, "image", *session.posargs, external=True)


@nox.session(venv_backend="none")
def workflows(session: nox.Session) -> None:
    """actionlint, over .github/workflows."""
    if not shutil.which("go"):
        not_run(session, "actionlint", "no Go toolchain to build it")
    folder = Path(session.create_tmp()).resolve()
    session.run("go", "install", ACTIONLINT, env={"GOBIN": str(folder)}, external=True)
    session.run(str(folder / "actionlint"), "-color=false", external=True)


@nox.session
def page(session: nox.Session) -> None:
    """The page of `/statusz` in a headless Chromium (Debian's `chromium`)."""
    if not shutil.which("chromium"):
        not_run(session, "the page in a browser", "no chromium")
    install(session, "test")
    session.run("pytest", "-m", "browser", *RERUN, "tests/diagnostics", *session.posargs)


@nox.session(venv_backend="none")
def rules(session: nox.Session) -> None:
    """promtool, over the alerting rules and what lets them fire."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if not shutil.which("go"):
            not_run(session, "promtool", "it is not installed, and there is no Go toolchain to build it")
        folder = Path(session.create_tmp()).resolve()
        session.run("go", "install", PROMTOOL, env={"GOBIN": str(folder)}, external=True)
        promtool = str(folder / "promtool")
    session.run(promtool, "check", "rules", "docs/how-to/observability/rules.yaml", external=True)
    session.run(promtool, "test", "rules", "tests/observability/alerts.yaml", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The pages as a site, in build/docs, without a warning; and which of their commands no test runs."""
    install(session, "docs", project=False)
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "docs", "build/docs")
    session.run("python", "-m", "tests.docs.blocks")


@nox.session
def sandbox(session: nox.Session) -> None:
    """A cluster, a driver and the provisioner in one process."""
    install(session)
    session.run("python", "-m", "sandbox", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measurements; what they are, their output says."""
    install(session, "test")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew, one set of versions for all supported Pythons, and what the image installs."""
    session.install("uv")
    universal = ("--quiet", "--universal", "--python-version", PYTHONS[0], "--no-header", "--no-annotate")
    compiled = ("uv", "pip", "compile", *universal)
    everything = ("--all-extras", "--group", "dev", "pyproject.toml")
    session.run(*compiled, "--upgrade", *everything, "--output-file", "constraints.txt")
    pinned = (*compiled, "--constraint", "constraints.txt", "--generate-hashes", "--upgrade", "--output-file")
    session.run(*pinned, "image/requirements.txt", "pyproject.toml")
    session.run(*pinned, "image/tracing.txt", "--extra", "tracing", "pyproject.toml")
    backend = Path(session.create_tmp()) / "backend.in"
    backend.write_text("\n".join(PROJECT["build-system"]["requires"]))
    session.run(*pinned, "image/backend.txt", str(backend))


def _scenarios() -> list[str]:
    return [golden.stem for golden in (CONFORMANCE / "golden").glob("*.json")]
