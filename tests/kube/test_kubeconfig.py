"""Any scalar where a kubeconfig has a string: it works, or the error names the entry; there is never a traceback."""

import base64
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
import trio
import trustme
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube import kubeconfig, plaintext
from csi_provisioner.kube.asking import Ask
from csi_provisioner.kube.config import Cluster, resolve
from csi_provisioner.kube.credentials import Fixed, Plugin
from csi_provisioner.kube.errors import KubeError
from csi_provisioner.kube.sender import Sender
from csi_provisioner.kube.transport import Transport
from csi_provisioner.settings import ClusterSettings
from tests.kube.test_config import NOWHERE, document, of_cluster, of_user, written

AUTHORITY = base64.b64encode(trustme.CA().cert_pem.bytes()).decode()
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}
HERE = "PUT IT HERE"


def of_context(**fields: str) -> dict[str, Any]:
    return {"contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **fields}}]}


def of_https(**fields: str) -> dict[str, Any]:
    return of_cluster(**{"server": "https://api.test", "certificate-authority-data": AUTHORITY, **fields})


def of_exec(**fields: object) -> dict[str, Any]:
    return of_user(exec={**EXEC, **fields})


# Where the scalar goes, and what an error names
PLACES: list[tuple[dict[str, Any], str]] = [
    ({"current-context": HERE}, "context"),
    (of_context(cluster=HERE), "cluster"),
    (of_context(user=HERE), "user"),
    (of_context(namespace=HERE), "namespace"),
    ({"contexts": [{"name": HERE, "context": {"cluster": "c"}}]}, "context"),
    ({"clusters": [{"name": HERE, "cluster": {"server": "http://x"}}]}, "cluster"),
    ({"users": [{"name": HERE, "user": {}}]}, "user"),
    (of_https(server=HERE), "server"),
    (of_https(server=f"http://{HERE}"), "server"),
    (of_https(**{"certificate-authority": HERE, "certificate-authority-data": ""}), "certificate-authority"),
    (of_https(**{"certificate-authority-data": HERE}), "certificate-authority-data"),
    (of_https(**{"tls-server-name": HERE}), "tls-server-name"),
    (of_https(**{"proxy-url": HERE}), "proxy-url"),
    (of_https(**{"insecure-skip-tls-verify": HERE}), "insecure-skip-tls-verify"),
    (of_user(token=HERE), "token"),
    (of_user(tokenFile=HERE), "token file"),
    (of_user(username=HERE, password="p"), "username"),
    (of_user(username="u", password=HERE), "password"),
    ({**of_https(), **of_user(**{"client-certificate": HERE, "client-key-data": "eA=="})}, "client-certificate"),
    ({**of_https(), **of_user(**{"client-certificate-data": HERE, "client-key-data": "eA=="})}, "client-certificate"),
    ({**of_https(), **of_user(**{"client-certificate-data": "eA==", "client-key": HERE})}, "client-key"),
    ({**of_https(), **of_user(**{"client-certificate-data": "eA==", "client-key-data": HERE})}, "client-key"),
    (of_user(**{"as": HERE}), "as"),
    (of_user(**{"as": "x", "as-uid": HERE}), "as-uid"),
    (of_user(**{"as": "x", "as-groups": [HERE]}), "as-groups"),
    (of_user(**{"as": "x", "as-user-extra": {"scopes": [HERE]}}), "as-user-extra"),
    (of_exec(apiVersion=HERE), "apiVersion"),
    (of_exec(command=HERE), "command"),
    (of_exec(args=[HERE]), "args"),
    (of_exec(env=[{"name": HERE, "value": "v"}]), "env"),
    (of_exec(env=[{"name": "n", "value": HERE}]), "env"),
    (of_exec(installHint=HERE), "installHint"),
    (of_exec(provideClusterInfo=HERE), "provideClusterInfo"),
]
DOCUMENTS = [(document(**changes), entry) for changes, entry in PLACES]
SPELLED = [
    *("~", "null", "yes", "No", "on", "017", "0o17", "0x1F", "1_000", "1e3", ".inf", "-.INF", ".nan", "12:30:45", "="),
    *(
        "2026-01-01",
        "2026-13-45",
        "2026-01-01T00:00:00Z",
        "<<",
        "''",
        '"\\0"',
        '"\\n"',
        '"%zz"',
        "..",
        ".",
        "/",
        "//x",
        "-1",
    ),
    *("!!binary xx", "!!int abc", "!!float x", "!!timestamp x", "!!bool maybe", "!!null x", "!!str 5", "!foo x"),
    *("http://x", '"https://[::1"', '":1"', "https://x:99999999999999999999", "u:p@h", "https://u:p@h:1"),
]
SCALARS = st.one_of(
    st.sampled_from(SPELLED),
    st.text(st.characters(exclude_categories=["Cs"])).map(partial(yaml.safe_dump, default_style='"', width=1e6)),
    st.one_of(st.integers(), st.floats(), st.booleans(), st.dates(), st.datetimes()).map(yaml.safe_dump),
).map(lambda scalar: scalar.removesuffix("\n").removesuffix("\n..."))


class Noted(Exception):  # noqa: N818 - no error
    pass


class Notes(Transport):
    async def exchange(self, method: str, target: str, head: bytes, *_: object, **__: object) -> NoReturn:
        assert re.fullmatch(rb"([!-9;-~]+: [^\r\n]*\r\n)+", head)
        assert re.fullmatch(r"[!-~]+", target)
        raise Noted


async def use(cluster: Cluster) -> None:
    """What a request does with all of it, short of the network."""
    if isinstance(cluster.credentials, Plugin):
        cluster = msgspec.structs.replace(cluster, credentials=Fixed())
    with suppress(Noted):
        await Sender(Notes(cluster.route), cluster, "test/1").send(Ask("GET", "api"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
@given(place=st.sampled_from(DOCUMENTS), scalar=SCALARS)
def test_any_scalar_works_or_is_named(tmp_path: Path, place: tuple[str, str], scalar: str) -> None:
    text, entry = place
    path = tmp_path / "kubeconfig"
    path.write_text(text.replace(HERE, scalar))
    named = ""
    try:
        trio.run(use, resolve(ClusterSettings(kubeconfig=str(path)), environment=NOWHERE))
    except (Fatal, KubeError) as error:
        named = str(error)
    assert not named or entry in named


def test_names_and_secrets_that_look_like_something_else(tmp_path: Path) -> None:
    content = """
        current-context: 2026-01-01
        contexts: [{name: 2026-01-01, context: {cluster: 1e3, user: 007, namespace: on}}]
        clusters: [{name: 1e3, cluster: {server: 10.0.0.1, insecure-skip-tls-verify: yes}}]
        users: [{name: 007, user: {username: 0x1F, password: 1_000, as: 12:30:45}}]
    """
    (tmp_path / "kubeconfig").write_text(content)
    cluster = resolve(ClusterSettings(kubeconfig=str(tmp_path / "kubeconfig")), environment=NOWHERE)
    assert str(cluster.server) == "https://10.0.0.1"
    assert cluster.headers == [("Impersonate-User", "12:30:45")]
    assert trio.run(cluster.credentials.authorization) == "Basic " + base64.b64encode(b"0x1F:1_000").decode()


def test_what_a_plugin_is_handed_keeps_its_types(tmp_path: Path) -> None:
    given = {"retries": 3, "ratio": 0.5, "on": True, "text": "3", "nothing": None, "nested": [{"since": "2026-01-01"}]}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": given}
    path = Path(written(tmp_path, **of_https(extensions=[extension])))
    path.write_text(path.read_text().replace("'2026-01-01'", "2026-01-01"))
    cluster, _ = kubeconfig.read(path)
    assert cluster.extensions == [extension]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 200_000, id="brackets"),
        pytest.param(
            b"l0: &l0 {a: b}\n"
            + b"".join(b"l%d: &l%d {<<: [%b]}\n" % (i, i, b"*l%d, " % (i - 1) * 9) for i in range(1, 8)),
            id="aliases of aliases",
        ),
        pytest.param(b"- " * 200_000, id="dashes"),
        pytest.param(b"a: &a {b: *a}", id="recursion"),
        pytest.param(b"\xff", id="not-utf-8"),
        pytest.param(b"clusters: 3", id="a-scalar-for-a-list"),
        pytest.param(b"users: [{name: u, user: 5}]", id="a-scalar-for-an-entry"),
        pytest.param(b"contexts: [null]", id="nothing-for-an-entry"),
        pytest.param(b"clusters: [{name: c, cluster: {extensions: [{extension: !!int x}]}}]", id="no-number"),
        pytest.param(b"", id="empty"),
        pytest.param(b"text", id="text"),
    ],
)
def test_what_is_no_kubeconfig_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    with pytest.raises(Fatal, match=f"the kubeconfig {path} cannot be understood: "):
        resolve(ClusterSettings(kubeconfig=str(path)), environment=NOWHERE)


def test_a_mistake_is_told_without_the_line_that_may_hold_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("users:\n- name: u\n  user:\n    token: s3cret: x\n")
    with pytest.raises(Fatal, match=r"mapping values are not allowed .* in line 4") as caught:
        resolve(ClusterSettings(kubeconfig=str(path)), environment=NOWHERE)
    assert "s3cret" not in str(caught.value)


def test_a_json_file_with_tabs_and_a_file_of_two_documents(tmp_path: Path) -> None:
    path = Path(written(tmp_path))
    path.write_text(json.dumps(yaml.safe_load(path.read_text()), indent="\t") + "\n---\nnot: ours\n")
    assert kubeconfig.read(path)[0].server == "http://kubeconfig.test:8080"


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_a_file_that_has_no_end_or_no_writer_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kubeconfig"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 1 << 34)
    with pytest.raises(Fatal, match=str(path)):
        kubeconfig.read(path)


SCALARS = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.sampled_from(["1e3", "2024-01-01"])
)


@given(st.sampled_from(PLACES), SCALARS)
def test_a_file_of_json_means_what_it_means_as_yaml(place: tuple[dict[str, Any], str], scalar: object) -> None:
    def put(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: put(value) for key, value in node.items()}
        if isinstance(node, list):
            return [put(value) for value in node]
        return scalar if node == HERE else node

    text = json.dumps(put(yaml.safe_load(document(**place[0]))), ensure_ascii=False).encode(errors="replace")
    try:
        meant = msgspec.convert(plaintext.document(text), kubeconfig.File)
    except (msgspec.ValidationError, ValueError):
        return  # what is no YAML may be JSON: a control character
    assert kubeconfig._decoded(text) == meant


def test_of_json_no_parser_of_yaml_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(yaml.safe_load(document())))
    code = (
        "import sys; from csi_provisioner import deferred; deferred.defer(); from pathlib import Path; "
        "from csi_provisioner.kube import kubeconfig; kubeconfig.read(Path(sys.argv[1])); print('yaml' in sys.modules)"
    )
    for text, loaded in ((path.read_text(), "False"), (document(), "True")):
        path.write_text(text)
        found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == loaded
