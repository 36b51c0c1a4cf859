"""What people are told to look at: one table of causes, each with its advice and the test that it is this one.

The test is a regular expression that the error's text holds; the first row that fits is taken. A text may need facts
that only the one who asks knows.
"""

import re
from typing import NamedTuple

KUSTOMIZATIONS = {
    "base": "persistentvolumes persistentvolumeclaims events nodes leases.coordination.k8s.io "
    "storageclasses.storage.k8s.io csinodes.storage.k8s.io volumeattachments.storage.k8s.io "
    "volumeattributesclasses.storage.k8s.io",
    "components/leader-election": "watch/leases.coordination.k8s.io",
    "components/snapshots": "volumesnapshots.snapshot.storage.k8s.io volumesnapshotcontents.snapshot.storage.k8s.io",
    "components/capacity": "csistoragecapacities.storage.k8s.io pods replicasets.apps",
    "components/reference-grants": "referencegrants.gateway.networking.k8s.io",
    "components/secrets": "secrets",
}
"""Folders of `kustomize/`, and the kinds on which each grants the daemon rights; a verb, if another has the rest."""


class Row(NamedTuple):
    cause: str
    text: str
    test: str


def _status(code: int) -> str:
    """How the text of an error ends that was answered so."""
    return rf"\b{code}( \w+)?\)?$"


# What the machine does not give, whatever was asked of whom.
SHORTAGES = (
    Row("open files", "raise the limit of open files (ulimit -n) to 256 or more", "Too many open files"),
    Row(
        "memory",
        "raise the limit of memory: the container's, or this process's (ulimit -v)",
        "(?i)^MemoryError$|cannot allocate memory|failed to map segment",
    ),
    Row(
        "threads",
        "raise the limit of threads: the pod's (podPidsLimit), the user's (ulimit -u), or that of memory",
        "can't start new thread|Errno 11. Resource temporarily unavailable",
    ),
)
# The order counts: what names an object comes before the status alone.
TABLE = (
    *SHORTAGES,
    Row("missing right", "grant {right} to the service account of this process", _status(403)),
    Row(
        "missing namespace",
        "is there a namespace {namespace}? It is --leader-election-namespace, else that of the pod",
        f" Lease .*{_status(404)}",
    ),
    Row("missing pod", "NAMESPACE and POD_NAME have to name this process's pod", f" Pod .*{_status(404)}"),
    Row("missing kind", "{kind} is not served here: install what defines it", _status(404)),
    Row(
        "short watches",
        "changes are listed {gap} apart; does the API server restart, or a proxy before it end or change watches?",
        "^follow: (?!.* connection )",  # a connection that is lost is an outage like any other
    ),
    Row(
        "credentials",
        "check the credentials: the service account's token, or the user of the kubeconfig",
        rf"\(Credentials\)$|{_status(401)}",
    ),
    Row("wrong authority", "is the certificate authority, named in the error, this cluster's?", r"\(Untrusted\)$"),
    Row("wrong name", "the certificate has another name: set tls-server-name in the kubeconfig", r"\(WrongName\)$"),
    Row("expired", "look at the dates of the server's certificate, and at both machines' clocks", r"\(Expired\)$"),
    Row("no TLS", "is this another port, or is the server's URL to begin with http://?", r"\(NoTLS\)$"),
    Row(
        # An API server that restarts looks the same.
        "perhaps TLS wanted",
        "is the API server up, and is http:// right? One that wants TLS may close the connection without a word",
        r"\(Closed\)$",
    ),
    Row("TLS wanted", "the server wants TLS at this port: its URL is to begin with https://", r"\(WantsTLS\)$"),
    Row(
        "no socket",
        "--csi-address has to name the socket itself; mount the folder it is in, since a mount of a socket that is not "
        "there yet makes a folder",
        r"^socket .* is a ",
    ),
    Row("closed socket", "run as its owner, or share its group and let the group write (fsGroup)", r"^socket .* uid "),
    Row(
        "silent socket",
        "has the driver ended, or not started yet? See its own log",
        r"^socket .*(refused|says nothing|before it spoke)",
    ),
    Row("another's socket", "is it the driver's socket, or another program's?", r"^socket .* does not speak HTTP/2"),
    Row(
        "missing socket",
        "is the driver's container running, and its socket's folder mounted here at the path of --csi-address?",
        r"^socket ",
    ),
    Row("no name", "correct what is named so: no object can have this name", r"\(InvalidName\)$"),
    Row("own limit", "--kube-api-qps and --kube-api-burst allow fewer requests than are needed", r"\(Throttled\)$"),
    Row(
        # Bytes that are no HTTP, another object than the one that was asked for, or an answer without an end.
        "strange answer",
        "is it the API server that answers there, or something before it, such as a proxy or a page to log in?",
        r"\((InvalidAnswer|TooLarge)\)$",
    ),
    Row("proxy", "look at HTTPS_PROXY, HTTP_PROXY, NO_PROXY and the kubeconfig's proxy-url", "the proxy "),
    Row(
        "unknown host",
        "can this name be resolved here? Look at the server's URL and at the DNS of the pod",
        r"not known|name resolution|No address associated",
    ),
    # Everything else: the empty pattern is in any text.
    Row("unreachable", "is the API server up and reachable, and does nothing on the way end connections?", ""),
)


def row(error: object) -> Row:
    return next(row for row in TABLE if re.search(row.test, str(error)))


def advice(error: object, **facts: str) -> str:
    return row(error).text.format(**facts)


def shortage(error: BaseException) -> str | None:
    """Advice for what the machine did not give; None for any other error."""
    text = str(error) or type(error).__name__
    return next((row.text for row in SHORTAGES if re.search(row.test, text)), None)


def kustomization(group: str, plural: str, verb: str = "") -> str | None:
    """The folder that grants a right on a kind."""
    kind = f"{plural}.{group}".rstrip(".")
    for asked in (f"{verb}/{kind}", kind):
        for folder, kinds in KUSTOMIZATIONS.items():
            if asked in kinds.split():
                return folder
    return None
