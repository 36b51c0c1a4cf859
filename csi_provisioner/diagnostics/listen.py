"""The listening socket of the HTTP endpoint."""

import socket

from csi_provisioner.fatal import Fatal

# Connections that wait to be accepted. In a crowd a client without a place here retries only after a second.
_BACKLOG = 256


def listen(endpoint: str, path: str) -> socket.socket:
    """A socket that listens at `127.0.0.1:8080`, `[::1]:8080`, `host:80`, or, in all of its forms (`:8080`,
    `0.0.0.0:8080`, `[::]:8080`), at every address of both families, as Go does it.

    Raises Fatal, which names the address and what was to be served.
    """
    try:
        host, port = _split(endpoint)
        family = _family(host, port)
        # create_server sets SO_REUSEADDR, so a port in TIME_WAIT after a restart can be used at once.
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=not host and family == socket.AF_INET6,
        )
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        reason = reason.partition(" (while ")[0]  # create_server repeats the address, as a tuple
        raise Fatal(f"cannot listen on {endpoint} to serve {path}: {reason}", 255) from error
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(endpoint: str) -> tuple[str, int]:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError("an address is host:port, such as :8080, 127.0.0.1:8080 or [::1]:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address goes in brackets, such as [::1]:8080")
    return "" if host in ("0.0.0.0", "::") else host, int(port)


def _family(host: str, port: int) -> socket.AddressFamily:
    if not host:
        return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
