"""Where a URL leads, and whether a proxy stands before it, by the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.

Pure. The rules are those that pods' environments are written for: upper case before lower case, loopback never, and in
`NO_PROXY` also address ranges (`10.96.0.0/12`), which Python's own reading of these variables does not know.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, unquote_to_bytes, urlsplit

import msgspec

PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[A-Za-z0-9._:%-]+")  # addresses too, with the zone that one of IPv6 may have


class Url(msgspec.Struct, frozen=True):
    """Where a URL leads: the host as the network knows it, the path as a request sends it, without its last slash.

    Printed, it has no password.
    """

    scheme: str
    host: str
    port: int
    path: str
    login: bytes
    """User and password, as in `user:password`."""

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    __repr__ = __str__

    def proxy_fields(self) -> list[tuple[str, str]]:
        """The header that tells a proxy who we are."""
        return [("Proxy-Authorization", basic(self.login))] if self.login else []


def parsed(text: str) -> Url:
    """A ValueError for anything but a URL of HTTP; its text may hold the password."""
    url = urlsplit(text)
    name, login = url.hostname or "", url.netloc.rpartition("@")[0]
    host = str(address_of(name) or name.encode("idna").decode())
    port = PORTS[url.scheme] if url.port is None and url.scheme in PORTS else url.port
    if not (text.isprintable() and url.scheme in PORTS and HOST.fullmatch(host) and port):
        raise ValueError(text)
    if login and ":" not in login:
        login += ":"
    return Url(url.scheme, host, port, quote(url.path.rstrip("/"), safe="/%"), unquote_to_bytes(login))


def basic(login: bytes) -> str:
    return f"Basic {b64encode(login).decode()}"


def proxy_for(server: Url, environment: Mapping[str, str]) -> str | None:
    proxy = _variable(environment, f"{server.scheme.upper()}_PROXY")
    if not proxy or _direct(server.host, server.port, _variable(environment, "NO_PROXY")):
        return None
    # A bare host is what many environments have.
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _direct(host: str, port: int, exceptions: str) -> bool:
    address = address_of(host)
    # A proxy is another machine, so it never leads to our own.
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
