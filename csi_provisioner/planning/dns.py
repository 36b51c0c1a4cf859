"""DNS labels and subdomains as Kubernetes means them (RFC 1123): names of objects and namespaces, prefixes of keys.

Every kind that is asked for by a name out of another object is named so. What is not never gets into a URL: a name with
`/`, `..` or `%` would lead to another object, or past a namespace, wherever something on the way normalises paths.
"""

import re
from functools import lru_cache

# Lower case only, and `fullmatch` below: `$` would let a line break through at the end.
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")


@lru_cache(maxsize=1024)
def is_label(text: str) -> bool:
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None
