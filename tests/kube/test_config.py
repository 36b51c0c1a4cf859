"""Where the cluster is and how to be let in: the order of design.md 4, what a kubeconfig can say and get wrong."""

import base64
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from csi_provisioner.fatal import Fatal
from csi_provisioner.kube.config import Cluster, resolve
from csi_provisioner.settings import ClusterSettings

NOWHERE: dict[str, str] = {}


def document(name: str = "kubeconfig", **changes: Any) -> str:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "storage"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://{name}.test:8080"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        **changes,
    }
    return yaml.safe_dump(content)


def written(folder: Path, name: str = "kubeconfig", **changes: Any) -> str:
    path = folder / name
    path.write_text(document(name, **changes))
    return str(path)


def of_cluster(**fields: object) -> dict[str, object]:
    return {"clusters": [{"name": "c", "cluster": {"server": "https://api.test", **fields}}]}


def of_user(**fields: object) -> dict[str, object]:
    return {"users": [{"name": "u", "user": fields}]}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("pod-token\n")
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.crt"))
    return folder


IN_POD = {"service_host": "10.0.0.1", "service_port": "443"}


@pytest.mark.parametrize(
    ("given", "server", "source"),
    [
        pytest.param(
            {"kubeconfig", "master", "pod", "fallback"}, "http://master.test", "kubeconfig flag", id="both-flags"
        ),
        pytest.param({"kubeconfig", "pod", "fallback"}, "http://flag.test:8080", "kubeconfig flag", id="kubeconfig"),
        pytest.param({"master", "pod", "fallback"}, "http://master.test", "--master", id="master-alone"),
        pytest.param({"pod", "fallback"}, "https://10.0.0.1", "service account of the pod", id="pod"),
        pytest.param({"fallback"}, "http://fallback.test:8080", "kubeconfig fallback", id="KUBECONFIG"),
    ],
)
def test_the_first_source_that_is_given_is_taken(
    given: set[str], server: str, source: str, tmp_path: Path, account: Path
) -> None:
    settings = ClusterSettings(
        kubeconfig=written(tmp_path, "flag") if "kubeconfig" in given else "",
        master="http://master.test" if "master" in given else "",
        fallback_kubeconfig=written(tmp_path, "fallback") if "fallback" in given else "",
        **(IN_POD if "pod" in given else {}),  # type: ignore[arg-type]
    )
    found = resolve(settings, account=account, environment=NOWHERE)
    assert str(found.server) == server
    assert found.source.replace(f"{tmp_path}/", "") == source


def test_nothing_given_names_all_ways() -> None:
    with pytest.raises(Fatal) as caught:
        resolve(ClusterSettings(), environment=NOWHERE)
    for way in ("--kubeconfig", "KUBE_CONFIG_PATH", "--master", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        assert way in str(caught.value)


async def test_a_master_alone_comes_without_credentials() -> None:
    found = resolve(ClusterSettings(master="127.0.0.1:8080"), environment=NOWHERE)
    assert str(found.server) == "http://127.0.0.1:8080"
    assert await found.credentials.authorization() is None


# ---- in a pod


async def test_a_pod_uses_its_service_account(account: Path) -> None:
    found = resolve(ClusterSettings(service_host="fd00::1", service_port="6443"), account=account, environment=NOWHERE)
    assert str(found.server) == "https://[fd00::1]:6443"
    assert await found.credentials.authorization() == "Bearer pod-token"
    assert found.route.tls is not None
    assert len(found.route.tls.context.get_ca_certs()) == 1


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_an_unreadable_ca_leaves_the_systems(account: Path, content: str | None) -> None:
    (account / "ca.crt").unlink()
    if content is not None:
        (account / "ca.crt").write_text(content)
    found = resolve(ClusterSettings(**IN_POD), account=account, environment=NOWHERE)  # type: ignore[arg-type]
    assert found.route.tls is not None
    assert found.route.tls.context.check_hostname
    assert found.route.tls.trouble


def test_an_unreadable_token_is_an_error(account: Path) -> None:
    (account / "token").unlink()
    with pytest.raises(Fatal, match=r"token of the pod's service account, .*/token: No such file or directory;"):
        resolve(ClusterSettings(**IN_POD), account=account, environment=NOWHERE)  # type: ignore[arg-type]


# ---- mistakes in a kubeconfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"current-context": ""}, "has no current-context", id="no-context"),
        pytest.param({"current-context": "x"}, r"has no context 'x' \(it has: 'here'\)", id="unknown-context"),
        pytest.param({"clusters": []}, r"has no cluster 'c' \(it has: none\)", id="unknown-cluster"),
        pytest.param({"users": None}, "has no user 'u'", id="unknown-user"),
        pytest.param(of_cluster(server=""), "has no server", id="no-server"),
        pytest.param(of_cluster(server="ftp://x"), "is not an http:// or https:// URL", id="scheme"),
        pytest.param(of_cluster(server="https://a;b"), "'https://a;b' is not an http", id="host"),
        pytest.param(of_cluster(server="https://a b"), "'https://a b' is not an http", id="space"),
        pytest.param(of_cluster(server="http://a..b"), r"'http://a\.\.b' is not an http", id="label"),
        pytest.param(of_cluster(server="https://x:port"), "is not an http:// or https:// URL", id="url"),
        pytest.param({"clusters": {"name": "c"}}, r"Expected `array \| null`, got `object`", id="type"),
        pytest.param(
            of_cluster(**{"certificate-authority": "gone.crt"}),
            r"certificate-authority of kube.*/gone\.crt'",
            id="ca-gone",
        ),
        pytest.param(
            of_cluster(**{"certificate-authority": "empty.crt"}),
            "certificate-authority of kubeconfig .*: no certificate in it",
            id="ca-empty",
        ),
        pytest.param(
            of_cluster(**{"certificate-authority-data": "%%"}),
            "certificate-authority-data of kube.*: Only",
            id="ca-bad",
        ),
        pytest.param(
            of_cluster(**{"proxy-url": "socks5://p:1"}), r"proxy \(proxy-url.*'socks5://p:1' is not an http", id="socks"
        ),
        pytest.param(
            of_cluster(**{"proxy-url": "http://me:pw@p:x"}), r"\(proxy-url.*'http://\*\*\*@p:x' is not an", id="proxy"
        ),
        pytest.param({**of_cluster(), **of_user(**{"client-key-data": "eA=="})}, "needs its key", id="half-a-pair"),
        pytest.param(
            of_user(**{"auth-provider": {"name": "gcp"}}), "auth-provider is not supported", id="auth-provider"
        ),
        pytest.param(
            of_user(exec={"apiVersion": "v0", "command": "x"}), "apiVersion 'v0' is none of", id="exec-version"
        ),
    ],
)
def test_a_mistake_in_a_kubeconfig_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "empty.crt").touch()
    path = written(tmp_path, **changes)
    with pytest.raises(Fatal, match=message):
        resolve(ClusterSettings(kubeconfig=path), environment=NOWHERE)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"cannot read the kubeconfig .*gone: No such file"):
        resolve(ClusterSettings(kubeconfig=str(tmp_path / "gone")), environment=NOWHERE)


def test_a_kubeconfig_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("clusters: [")
    with pytest.raises(Fatal, match="broken cannot be understood"):
        resolve(ClusterSettings(kubeconfig=str(tmp_path / "broken")), environment=NOWHERE)


# ---- what a kubeconfig can say


def found(tmp_path: Path, environment: dict[str, str] = NOWHERE, **changes: Any) -> Cluster:
    return resolve(ClusterSettings(kubeconfig=written(tmp_path, **changes)), environment=environment)


async def test_a_context_without_a_user_has_no_credentials(tmp_path: Path) -> None:
    cluster = found(tmp_path, contexts=[{"name": "here", "context": {"cluster": "c"}}])
    assert await cluster.credentials.authorization() is None


@pytest.mark.parametrize(
    ("user", "header"),
    [
        pytest.param({"token": "a"}, "Bearer a", id="token"),
        pytest.param({"tokenFile": "token", "token": "a"}, "Bearer from-file", id="token-file-first"),
        pytest.param({"username": "me", "password": "pass"}, "Basic bWU6cGFzcw==", id="password"),
        pytest.param({}, None, id="anonymous"),
    ],
)
async def test_each_kind_of_user_has_its_credentials(
    tmp_path: Path, user: dict[str, object], header: str | None
) -> None:
    (tmp_path / "token").write_text("from-file")
    assert await found(tmp_path, **of_user(**user)).credentials.authorization() == header


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
def test_certificates_inline_or_in_files_beside_the_kubeconfig(tmp_path: Path, inline: bool) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("me@example.test")
    contents = {
        "certificate-authority": authority.cert_pem.bytes(),
        "client-certificate": pair.cert_chain_pems[0].bytes(),
        "client-key": pair.private_key_pem.bytes(),
    }
    fields = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        fields |= {f"{name}-data": base64.b64encode(content).decode()} if inline else {name: name}
    authority_field = {name: value for name, value in fields.items() if "authority" in name}
    user = {name: value for name, value in fields.items() if "authority" not in name}
    cluster = found(tmp_path, **of_cluster(**authority_field), **of_user(**user))
    assert cluster.route.tls is not None
    assert len(cluster.route.tls.context.get_ca_certs()) == 1


def test_a_bundle_of_authorities_with_comments(tmp_path: Path) -> None:
    bundle = b"".join("# Autorità\n".encode() + trustme.CA().cert_pem.bytes() for _ in range(2))
    cluster = found(tmp_path, **of_cluster(**{"certificate-authority-data": base64.b64encode(bundle).decode()}))
    assert cluster.route.tls is not None
    assert len(cluster.route.tls.context.get_ca_certs()) == 2


def test_a_name_with_nothing_behind_it_is_as_good_as_left_out(tmp_path: Path) -> None:
    context = {"cluster": "c", "user": "u", "namespace": None}
    cluster = found(
        tmp_path,
        contexts=[{"name": "here", "context": context}],
        clusters=[{"name": "c", "cluster": {"server": "http://api.test", "certificate-authority": None}}],
        users=[{"name": "u", "user": None}],
    )
    assert str(cluster.server) == "http://api.test"


def test_the_name_of_a_certificate_and_whether_it_is_verified_can_be_set(tmp_path: Path) -> None:
    cluster = found(tmp_path, **of_cluster(**{"tls-server-name": "other.test", "insecure-skip-tls-verify": True}))
    assert cluster.route.server_name == "other.test"
    assert cluster.route.tls is not None
    assert not cluster.route.tls.context.check_hostname


def test_who_is_acted_for_stands_in_the_headers(tmp_path: Path) -> None:
    extra = {"example.org/scopes": ["view", "edit"]}
    cluster = found(tmp_path, **of_user(**{"as": "her", "as-groups": ["a", "b"], "as-user-extra": extra}))
    assert cluster.headers == [
        ("Impersonate-User", "her"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.org%2Fscopes", "view"),
        ("Impersonate-Extra-example.org%2Fscopes", "edit"),
    ]


@pytest.mark.parametrize(
    ("given", "server", "path"),
    [
        ("https://EXAMPLE.test:443/", "https://example.test", ""),
        ("https://exämple.test:6443/k8s/c m/%2f/", "https://xn--exmple-cua.test:6443/k8s/c%20m/%2f", "/k8s/c%20m/%2f"),
        ("http://[::ffff:10.0.0.1]", "http://10.0.0.1", ""),
        ("http://[fd00:0::1]:80", "http://[fd00::1]", ""),
        ("http://me:s3cret@api_1.test", "http://api_1.test", ""),
    ],
)
def test_a_url_becomes_what_the_network_and_requests_have(tmp_path: Path, given: str, server: str, path: str) -> None:
    url = found(tmp_path, **of_cluster(server=given)).server
    assert (str(url), url.path) == (server, path)
    assert "s3cret" not in f"{url!r} {url}"


@pytest.mark.parametrize(
    ("entry", "environment", "proxy"),
    [
        pytest.param({}, {"HTTPS_PROXY": "proxy.test:3128"}, "http://proxy.test:3128", id="environment"),
        pytest.param({}, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.test"}, None, id="not-for-this-host"),
        pytest.param(
            {"proxy-url": "http://own:1"}, {"HTTPS_PROXY": "http://p:1"}, "http://own:1", id="kubeconfig-first"
        ),
        pytest.param({}, {"HTTP_PROXY": "http://p:1"}, None, id="another-scheme"),
    ],
)
def test_the_proxy_of_the_kubeconfig_comes_before_that_of_the_environment(
    tmp_path: Path, entry: dict[str, object], environment: dict[str, str], proxy: str | None
) -> None:
    cluster = found(tmp_path, environment, **of_cluster(**entry))
    assert (cluster.route.proxy and str(cluster.route.proxy)) == proxy
