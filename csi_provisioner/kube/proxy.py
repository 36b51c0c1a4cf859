"""Where a URL leads, and whether a proxy stands before it, by the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.

Pure. The rules are those that pods' environments are written for: upper case before lower case, loopback never, and in
`NO_PROXY` also address ranges (`10.96.0.0/12`), which Python's own reading of these variables does not know.
"""

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote_to_bytes

import httpx2


def endpoint(url: httpx2.URL) -> tuple[str, int]:
    """Host and port, the host as the network has it."""
    port = url.port if url.port is not None else 443 if url.scheme == "https" else 80
    return str(address_of(url.host) or url.raw_host.decode()), port


def authorization(proxy: httpx2.URL) -> list[tuple[str, str]]:
    """The header that names us to it."""
    basic = b64encode(unquote_to_bytes(proxy.userinfo)).decode()
    return [("Proxy-Authorization", f"Basic {basic}")] if basic else []


def proxy_for(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> str | None:
    proxy = _variable(environment, "HTTPS_PROXY" if scheme == "https" else "HTTP_PROXY")
    if not proxy or _direct(host.strip("[]").lower(), port, _variable(environment, "NO_PROXY")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _direct(host: str, port: int, exceptions: str) -> bool:
    address = address_of(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_fits(entry.strip().lower(), host, port, address) for entry in exceptions.split(","))


def _fits(entry: str, host: str, port: int, address: IPv4Address | IPv6Address | None) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, found, number = entry.rpartition(":")
    if found and number.isdecimal() and address_of(entry) is None:  # a port, not the end of an IPv6 address
        if number != str(port):
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return address_of(entry) == address
    # ".x.org" and "*.x.org" are what is below x.org; "x.org" is that and itself
    below = entry.removeprefix("*")
    return host.endswith(below) if below.startswith(".") else host == below or host.endswith(f".{below}")


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address within IPv6 (`::ffff:10.0.0.1`) is that address, for certificates too."""
    try:
        found = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
