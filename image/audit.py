"""Asks for the known vulnerabilities of what the image holds and of what builds it.

    python image/audit.py [ARGUMENT of pip-audit ...]

Ends with 0 if there are none, 1 if there are some, 75 if nobody could be asked about each package. pip-audit needs
`--strict` for that: without it a package that could not be looked up counts as one without vulnerabilities.
"""

import json
import subprocess
import sys
from pathlib import Path

FILES = ("tracing.txt", "backend.txt")  # the first has all of requirements.txt
NOT_ASKED = 75


def main(arguments: list[str]) -> int:
    named = [f"--requirement={Path(__file__).parent / name}" for name in FILES]
    given = arguments if any(argument.startswith("--requirement") for argument in arguments) else [*named, *arguments]
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--strict",
        "--disable-pip",
        "--progress-spinner=off",
        "--format=json",
    ]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        # It says all that it knows or nothing.
        print(f"nobody could be asked: {(done.stderr.strip() or 'no answer').splitlines()[-1]}")
        return NOT_ASKED
    found = [(package, flaw) for package in packages for flaw in package["vulns"]]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {mended}: {flaw['description']}")
    print(f"{len(packages)} packages, {len(found)} known vulnerabilities")
    return 1 if found or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
