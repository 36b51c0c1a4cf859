"""Whether a proxy stands between us and the API server, by the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.

Pure. The rules are those that pods' environments are written for: upper case before lower case, loopback never, and in
`NO_PROXY` also address ranges (`10.96.0.0/12`), which Python's own reading of these variables does not know.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def proxy_for(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> str | None:
    proxy = _variable(environment, "HTTPS_PROXY" if scheme == "https" else "HTTP_PROXY")
    if not proxy or _direct(host.strip("[]").lower(), port, _variable(environment, "NO_PROXY")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _direct(host: str, port: int, exceptions: str) -> bool:
    address = _address(host)
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
    if found and number.isdecimal() and _address(entry) is None:  # a port, not the end of an IPv6 address
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return _address(entry) == address
    # ".x.org" and "*.x.org" are what is below x.org; "x.org" is that and itself
    below = entry.removeprefix("*")
    return host.endswith(below) if below.startswith(".") else host == below or host.endswith(f".{below}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None
