"""What libraries load when they are imported, and this program does not use, is left for who asks for it.

lightkube's own `__init__` loads an HTTP client and all kinds that it knows, prometheus_client's two HTTP servers;
betterproto2 reads its version from its installed files, with an archiver and a parser of mail; Trio makes DTLS over
UDP. Each would be in every start, and in the memory of a process that has nothing to do.
"""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType

PACKAGES = ("lightkube", "prometheus_client")
"""Only single modules of them are used."""


class _Package(ModuleType):
    def __getattr__(self, name: str) -> object:
        """A module of it; for anything else its `__init__` is run now."""
        if find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ is not None and self.__spec__.loader is not None:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class _Version(ModuleType):
    """In the place of betterproto2's: a test, and not each start, compares its version with that of the compiler."""

    __version__ = ""

    @staticmethod
    def check_compiler_version(_version: str) -> None: ...


class _Nothing(ModuleType):
    """In the place of Trio's DTLS: whatever is imported from it is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def defer() -> None:
    """Before any of them is imported."""
    for name in PACKAGES:
        if name not in sys.modules and (spec := find_spec(name)) is not None:
            sys.modules[name] = module_from_spec(spec)
            sys.modules[name].__class__ = _Package
    sys.modules.setdefault("betterproto2._version", _Version("betterproto2._version"))
    sys.modules.setdefault("trio._dtls", _Nothing("trio._dtls"))
