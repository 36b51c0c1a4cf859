"""The canary's plugin finds a secret that is shown, and all Secrets of the tests hold the canary."""

import re
import subprocess
import sys
from pathlib import Path

from tests import shown

TESTS = Path(__file__).parent
OUTLETS = ["URL", "journal", "local socket", "log", "metrics", "page", "request", "stderr", "stdout"]
OUTLETS += ["termination message", "trace"]


def test_a_secret_that_is_shown_anywhere_in_any_form_fails_the_run() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "shown.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent)
    assert done.returncode == 1
    assert f"{len(shown.FORMS) + 3} passed, {len(shown.FORMS) + 2} errors" in done.stdout
    said = dict(re.findall(r"^_+ ERROR at teardown of (\S+) _+$(.*?)(?=^[-_=])", done.stdout, re.MULTILINE | re.DOTALL))
    found = {test: sorted(set(re.findall(r"^([\w ]+): b?['\"]", text, re.MULTILINE))) for test, text in said.items()}
    assert found == {f"test_shown_everywhere[{form}]": OUTLETS for form in shown.FORMS} | {
        "test_shown_in_a_traceback": ["log", "stderr"],
        "test_shown_to_a_test_that_reads": ["stdout"],
    }
