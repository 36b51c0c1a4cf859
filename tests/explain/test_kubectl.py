"""`kubectl csi-explain` asks the leader's pod, which the Lease names."""

import os
import subprocess
from pathlib import Path

import pytest

from csi_provisioner.kube.identity import sanitised, stable

SCRIPT = Path(__file__).parent.parent.parent / "bin" / "kubectl-csi_explain"
UID = "0d9f5c1e-3e2b-4a55-9f5a-7c6b7f0a1d11"
MOUNTS = f"1 2 3:4 /kubelet/pods/{UID}/containers/csi-provisioner/0a1b2c3d /dev/termination-log rw"
# What is asked, without the output's form, and what is answered; all that is asked is noted.
KUBECTL = """#!/bin/sh
echo "$*" >>{notes}
case "$*" in
  "-n shop get pvc data "*|"-n default get pvc data "*) printf fast ;;
  "get storageclass fast "*) printf disk.example.com. ;;
  "get leases -A --field-selector metadata.name={lease} "*) printf '{held}' ;;
  *" exec "*) exit 4 ;;
  *) echo "Error from server (NotFound): $*" >&2; exit 1 ;;
esac
"""


def asked(folder: Path, held: str, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """How it ended, and the last that kubectl was asked."""
    notes, kubectl = folder / "notes", folder / "kubectl"
    kubectl.write_text(KUBECTL.format(notes=notes, lease=sanitised("disk.example.com."), held=held))
    kubectl.chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([SCRIPT, *arguments], env=path | environment, capture_output=True, text=True, check=False)
    return done, notes.read_text().splitlines()[-1]


@pytest.fixture
def held() -> str:
    return f"storage {stable('csi-controller-0', MOUNTS)}"


@pytest.mark.parametrize(
    ("given", "claim"),
    [(["shop/data"], "shop/data"), (["data"], "default/data"), (["shop/data", "-o", "json"], "shop/data -o json")],
    ids=["namespace", "default", "flags"],
)
def test_the_leaders_pod_is_asked(tmp_path: Path, held: str, given: list[str], claim: str) -> None:
    done, last = asked(tmp_path, held, *given)
    assert last == f"-n storage exec csi-controller-0 -c csi-provisioner -- /explain {claim}"
    assert done.returncode == 4, "the exit code is the answer's"


def test_a_driver_that_the_class_does_not_name_is_given(tmp_path: Path, held: str) -> None:
    done, _ = asked(tmp_path, held, "shop/data", DRIVER="ebs.csi.aws.com")
    assert done.returncode == 1
    assert "metadata.name=ebs-csi-aws-com" in (tmp_path / "notes").read_text()


@pytest.mark.parametrize("held", ["", " ", "storage ", "storage somebody"], ids=["none", "empty", "free", "no pod"])
def test_where_no_pod_leads_that_is_said(tmp_path: Path, held: str) -> None:
    done, last = asked(tmp_path, held, "shop/data")
    assert (done.returncode, "exec" in last) == (1, False)
    assert done.stderr == "no pod holds the Lease disk-example-com-X of driver disk.example.com.\n"


def test_a_claim_that_is_not_there_is_kubectls_error(tmp_path: Path, held: str) -> None:
    done, last = asked(tmp_path, held, "shop/other")
    assert (done.returncode, "NotFound" in done.stderr) == (1, True)
    assert last.startswith("-n shop get pvc other")
