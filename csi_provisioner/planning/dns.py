"""DNS labels and subdomains as Kubernetes means them (RFC 1123): names of namespaces and secrets, prefixes of keys."""

import re
from functools import lru_cache

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")


@lru_cache(maxsize=1024)
def is_label(text: str) -> bool:
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None
