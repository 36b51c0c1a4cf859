"""Whole provisionings on virtual time: one driver, one provisioner, a cluster of the sandbox."""

from tests.installation import anyio_backend, site

__all__ = ["anyio_backend", "site"]
