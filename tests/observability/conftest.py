from tests.installation import anyio_backend, site

__all__ = ["anyio_backend", "site"]
