"""Which servers are reached through a proxy."""

import pytest

from csi_provisioner.kube.proxy import Url, proxy_for

PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("host", "port", "exceptions", "direct"),
    [
        ("api.test", 443, "", False),
        ("api.test", 443, "*", True),
        ("api.test", 443, "other.test, api.test ", True),
        ("api.test", 443, "API.test", True),
        ("api.test", 443, "test", True),
        ("api.test", 443, ".test", True),
        ("api.test", 443, "*.test", True),
        ("test", 443, ".test", False),
        ("myapi.test", 443, "api.test", False),
        ("api.test", 443, "api.test:443", True),
        ("api.test", 443, "api.test:6443", False),
        ("10.96.0.1", 443, "10.96.0.0/12", True),
        ("10.96.0.1", 443, "10.97.0.0/16", False),
        ("10.96.0.1", 443, "10.96.0.1", True),
        ("10.96.0.1", 443, "10.96.0.1:443", True),
        ("10.96.0.1", 443, "10.96.0.1:80", False),
        ("10.96.0.1", 443, "0.1", False),
        ("10.96.0.1", 443, "bad/12", False),
        ("fd00::1", 443, "fd00::/8", True),
        ("fd00::1", 443, "fd00:0::1", True),
        ("fd00::1", 443, "[fd00::1]:443", True),
        ("api.test", 443, "10.0.0.0/8", False),
        ("localhost", 443, "", True),
        ("127.0.0.1", 443, "", True),
        ("::1", 443, "", True),
    ],
)
def test_what_no_proxy_names_is_reached_directly(host: str, port: int, exceptions: str, direct: bool) -> None:
    found = proxy_for(Url("https", host, port, "", b""), {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions})
    assert found == (None if direct else PROXY)


@pytest.mark.parametrize(
    ("scheme", "environment", "proxy"),
    [
        ("https", {"https_proxy": "proxy.test:1"}, "http://proxy.test:1"),
        ("https", {"https_proxy": "http://lower", "HTTPS_PROXY": "https://upper"}, "https://upper"),
        ("http", {"HTTPS_PROXY": PROXY}, None),
        ("http", {"HTTP_PROXY": PROXY}, PROXY),
        ("http", {"HTTP_PROXY": PROXY, "no_proxy": "api.test"}, None),
        ("https", {"ALL_PROXY": PROXY}, None),
    ],
)
def test_the_proxy_is_that_of_the_scheme_and_upper_case_comes_first(
    scheme: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(Url(scheme, "api.test", 443, "", b""), environment) == proxy
