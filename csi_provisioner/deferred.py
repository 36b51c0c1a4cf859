"""What libraries load when they are imported, and this program does not use, is left for who asks for it.

Each would be in every start, and in the memory of a process that has nothing to do.
"""

import sys
import typing
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType

PACKAGES = ("ctypes", "idna", "lightkube", "prometheus_client")
"""Only single modules of them are used, or none. lightkube's own `__init__` loads an HTTP client and all kinds that it
knows, prometheus_client's two HTTP servers; Trio asks idna for names that are not ASCII."""
UNUSED = (
    "attr._version_info",
    "loguru._file_sink",  # archives
    "msgspec._json_schema",
    "msgspec.inspect",
    "prometheus_client.decorator",
    "prometheus_client.mmap_dict",  # metrics of several processes in files
    "trio._dtls",
    "trio._file_io",
    "trio._highlevel_open_tcp_listeners",
    "trio._highlevel_serve_listeners",
    "trio._highlevel_ssl_helpers",
    "trio._path",
    "trio_asyncio._sync",  # greenlets
)
"""Whatever is imported from them is None."""


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> object:
        """Runs it now."""
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ is not None and self.__spec__.loader is not None:
            self.__spec__.loader.exec_module(self)
        return getattr(self, name)


class _Package(_Deferred):
    def __getattr__(self, name: str) -> object:
        """A module of it, if it has such a one."""
        if find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        return super().__getattr__(name)


class _Typing(_Deferred):
    def __getattr__(self, name: str) -> object:
        """The standard library's, if it has that."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(typing, name) if hasattr(typing, name) else super().__getattr__(name)


class _Nothing(ModuleType):
    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Version(ModuleType):
    """In the place of betterproto2's, which reads its version from its installed files, with an archiver and a parser
    of mail: a test, and not each start, compares its version with that of the compiler."""

    __version__ = ""

    @staticmethod
    def check_compiler_version(_version: str) -> None: ...


class _Libraries(_Deferred):
    """In the place of `ctypes.util`: Trio asks it for the library that names threads, for which it would start
    ldconfig, or a compiler."""

    def find_library(self, name: str) -> object:
        return "libpthread.so.0" if name == "pthread" else self.__getattr__("find_library")(name)  # type: ignore[operator]


class _Validators(_Deferred):
    @staticmethod
    def instance_of(_type: type) -> None:
        """With it outcome checks that what a task has raised is an exception."""


def defer() -> None:
    """Before any of them is imported."""
    modules = {"attr.validators": _Validators, "attrs.validators": _Deferred}
    modules |= {"ctypes.util": _Libraries, "typing_extensions": _Typing}
    for name, kind in (dict.fromkeys(PACKAGES, _Package) | modules).items():
        if name not in sys.modules and (spec := _spec(name)) is not None:
            sys.modules[name] = module_from_spec(spec)
            sys.modules[name].__class__ = kind
    for name in UNUSED:
        sys.modules.setdefault(name, _Nothing(name))
    sys.modules.setdefault("betterproto2._version", _Version("betterproto2._version"))
    sys.modules["ctypes"].util = sys.modules["ctypes.util"]  # type: ignore[attr-defined]


def _spec(name: str) -> ModuleSpec | None:
    """`find_spec` would import the package that it is in."""
    package, _, _ = name.rpartition(".")
    found = find_spec(package) if package else None
    return PathFinder.find_spec(name, found.submodule_search_locations) if found else find_spec(name)
