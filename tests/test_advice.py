"""Advice fits the cause; which parts of `kustomize/` it names is compared with what they hold."""

from pathlib import Path

import pytest
import yaml

from csi_provisioner.advice import KUSTOMIZATIONS, TABLE, advice, kustomization, row, shortage

FOLDERS = Path(__file__).parent.parent / "kustomize"


# Whose rights people use, not the daemon; who has less than all that is needed on a kind.
NOT_THE_DAEMONS = "components/explain"
PARTS = {"components/leader-election": "watch/"}


def _granted(folder: Path) -> set[str]:
    kinds: set[str] = set()
    for file in folder.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            for rule in document.get("rules", []) if isinstance(document, dict) else []:
                kinds |= {f"{name}.{group}".rstrip(".") for name in rule["resources"] for group in rule["apiGroups"]}
    return kinds


def test_the_table_of_kustomizations_is_what_the_folders_grant() -> None:
    folders = {str(folder.relative_to(FOLDERS)): folder for folder in [FOLDERS / "base", *FOLDERS.glob("components/*")]}
    granted = {
        name: {PARTS.get(name, "") + kind for kind in _granted(folder)}
        for name, folder in folders.items()
        if _granted(folder) and name != NOT_THE_DAEMONS
    }
    assert {folder: set(kinds.split()) for folder, kinds in KUSTOMIZATIONS.items()} == granted


@pytest.mark.parametrize(
    ("group", "plural", "folder"),
    [
        ("", "secrets", "components/secrets"),
        ("apps", "replicasets", "components/capacity"),
        ("", "pods", "components/capacity"),
        ("gateway.networking.k8s.io", "referencegrants", "components/reference-grants"),
        ("snapshot.storage.k8s.io", "volumesnapshots", "components/snapshots"),
        ("", "persistentvolumes", "base"),
        ("apps", "deployments", None),
        ("other.example.com", "secrets", None),
        ("", "", None),
    ],
)
def test_who_grants_what(group: str, plural: str, folder: str | None) -> None:
    assert kustomization(group, plural) == folder


def test_who_grants_a_verb_that_the_others_of_its_kind_are_not_with() -> None:
    found = {verb: kustomization("coordination.k8s.io", "leases", verb) for verb in ("watch", "update", "")}
    assert found == {"watch": "components/leader-election", "update": "base", "": "base"}


CAUSES = {
    "open files": "list Node: cannot connect to h port 1: [Errno 24] Too many open files (Unavailable)",
    "memory": "/p/_greenlet.so: failed to map segment from shared object",
    "threads": "list Node: cannot connect to h port 1: can't start new thread (Unavailable)",
    "missing right": 'list Node: nodes is forbidden: User "u" cannot list resource "nodes" (403 Forbidden)',
    "missing namespace": 'create Lease ns/l: namespaces "ns" not found (404 NotFound)',
    "missing pod": 'get Pod ns/p: pods "p" not found (404 NotFound)',
    "missing kind": "list ReferenceGrant: the server could not find the requested resource (404 NotFound)",
    "short watches": "follow: watch Node: the server ended it after 0.1 s, and nothing new had come",
    "credentials": "list Node: Unauthorized (401 Unauthorized)",
    "wrong authority": "list Node: TLS with h port 1 failed: certificate verify failed; trusted: /ca.crt (Untrusted)",
    "wrong name": "list Node: TLS with h port 1 failed: Hostname mismatch (WrongName)",
    "expired": "list Node: TLS with h port 1 failed: certificate has expired (Expired)",
    "no TLS": "list Node: TLS with h port 1 failed: wrong version number (NoTLS)",
    "perhaps TLS wanted": "list Node: the server closed the connection without an answer (Closed)",
    "TLS wanted": "list Node: the server answered in TLS (WantsTLS)",
    "no socket": "socket /run/csi.sock is a folder, no socket",
    "closed socket": "socket /s: Permission denied to uid 1: /s has owner 0, group 0, mode 0755",
    "silent socket": "socket /s: Connection refused",
    "another's socket": "socket /s: it does not speak HTTP/2 as it should: a frame of kind 3 for stream 7",
    "missing socket": "socket /s: No such file or directory",
    "no name": "get Lease ../l: not asked for: '..' cannot be a part of a URL (InvalidName)",
    "own limit": "get Node n: the client-side limit asks for a wait of 60 s, beyond the deadline (Throttled)",
    "strange answer": "list Node: the answer cannot be understood: JSON is malformed (InvalidAnswer)",
    "proxy": "list Node: the proxy h port 1 does not let us through to k:443: it answered 407 (Unavailable)",
    "unknown host": "list Node: cannot connect to h port 1: [Errno -2] Name or service not known (Unavailable)",
    "unreachable": "list Node: cannot connect to h port 1: Connection refused (Unavailable)",
}


def test_each_cause_has_its_own_advice() -> None:
    assert {cause: row(text).cause for cause, text in CAUSES.items()} == {cause: cause for cause in CAUSES}
    assert [row.cause for row in TABLE] == list(CAUSES)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(24, "Too many open files"), "open files"),
        (MemoryError(), "memory"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "threads"),
        (OSError(2, "No such file or directory"), ""),
        (ValueError("memory"), ""),
    ],
)
def test_what_the_machine_does_not_give_is_told_from_a_defect(error: Exception, named: str) -> None:
    assert named in str(shortage(error)) if named else shortage(error) is None


def test_what_is_known_besides_stands_in_the_advice() -> None:
    said = advice(CAUSES["missing right"], right="list on nodes", kind="Node")
    assert said == "grant list on nodes to the service account of this process"
