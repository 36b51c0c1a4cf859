"""On a machine that has neither MD5 nor SHA-1, as one in FIPS mode: a volume is made and deleted all the same."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# As OpenSSL's refusal looks; Python's own modules of these names are not there either.
MACHINE = """
import hashlib, sys

def refused(*given, **more):
    raise ValueError("[digital envelope routines] unsupported")

def new(name, *given, made=hashlib.new, **more):
    return (refused if name.lower() in ("md5", "sha1") else made)(name, *given, **more)

hashlib.md5 = hashlib.sha1 = refused
hashlib.new = new
sys.modules["_md5"] = sys.modules["_sha1"] = None
"""
RUN = """
from sandbox.demo import main

sys.exit(main(["--claims=1"]))
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_claim_gets_its_volume_and_gives_it_back() -> None:
    done = run(MACHINE + RUN)
    assert (done.returncode, "1 of 1 claims got their volume" in done.stdout) == (0, True), done.stdout + done.stderr


def test_such_a_machine_refuses_them() -> None:
    done = run(MACHINE + "hashlib.new('sha1')")
    assert "unsupported" in done.stderr
