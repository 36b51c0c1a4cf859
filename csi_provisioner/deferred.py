"""Libraries load what this program never uses. Some of that runs only when somebody asks for it, the rest never.

It would be in every start, and in the memory of a process that has nothing to do.
"""

import ctypes
import sys
import typing
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType

PACKAGES = ("idna", "lightkube", "prometheus_client")
"""Only single modules of them are used, or none. lightkube's own `__init__` loads an HTTP client and all kinds that it
knows, prometheus_client's two HTTP servers; Trio asks idna for names that are not ASCII."""
TYPING = frozenset({"NotRequired", "Required", "Self", "get_type_hints"})
"""What a start asks typing_extensions for, and the standard library has as well. (Other names it has too, but some
otherwise.)"""
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
"""Whatever is imported from them is `left_out`."""


def left_out(*_arguments: object, **_named: object) -> typing.NoReturn:
    raise NotImplementedError("this is left out of the program, see csi_provisioner/deferred.py")


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> typing.Any:
        """Runs it now, once, while other threads wait. Then it is a module like any other, also for those."""
        with self.__dict__["__lock__"]:
            if isinstance(self, _Deferred):
                if "__running__" in self.__dict__:  # its own code asks
                    raise AttributeError(name)
                self.__running__ = True
                try:
                    self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
                    self.__class__ = ModuleType  # type: ignore[assignment]
                finally:
                    del self.__running__
        return getattr(self, name)


class _Package(_Deferred):
    def __getattr__(self, name: str) -> typing.Any:
        """A module of it, if it has such a one."""
        module = f"{self.__name__}.{name}"
        if module in sys.modules or find_spec(module) is not None:
            return import_module(module)
        return _Deferred.__getattr__(self, name)


class _Typing(_Deferred):
    def __getattr__(self, name: str) -> typing.Any:
        if name == "__path__":  # whoever imports from it asks whether it is a package
            raise AttributeError(name)
        return getattr(typing, name) if name in TYPING else _Deferred.__getattr__(self, name)


class _Libraries(_Deferred):
    """`ctypes.util`: Trio asks it for the library that names threads, for which it would start ldconfig, or a
    compiler."""

    def find_library(self, name: str) -> typing.Any:
        return "libpthread.so.0" if name == "pthread" else _Deferred.__getattr__(self, "find_library")(name)


class _Validators(_Deferred):
    def instance_of(self, kind: type) -> typing.Any:
        """None, which is no check, for what outcome asks: whether what a task has raised is an exception."""
        return None if kind is BaseException else _Deferred.__getattr__(self, "instance_of")(kind)


class _Unused(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return left_out


class _Version(ModuleType):
    """In the place of betterproto2's, which reads its version from its installed files, with an archiver and a parser
    of mail: a test, and not each start, compares its version with that of the compiler."""

    __version__ = ""

    @staticmethod
    def check_compiler_version(_version: str) -> None: ...


def defer() -> None:
    """Before any of them is imported."""
    modules = {"attr.validators": _Validators, "attrs.validators": _Deferred}
    modules |= {"ctypes.util": _Libraries, "typing_extensions": _Typing}
    for name, kind in (dict.fromkeys(PACKAGES, _Package) | modules).items():
        if name not in sys.modules and (spec := _spec(name)) is not None:
            sys.modules[name] = module = module_from_spec(spec)
            module.__dict__["__lock__"] = RLock()
            module.__class__ = kind
    for name in UNUSED:
        sys.modules.setdefault(name, _Unused(name))
    sys.modules.setdefault("betterproto2._version", _Version("betterproto2._version"))
    ctypes.util = sys.modules["ctypes.util"]  # type: ignore[attr-defined]


def _spec(name: str) -> ModuleSpec | None:
    """`find_spec` would import the package that it is in."""
    package, _, _ = name.rpartition(".")
    found = find_spec(package) if package else None
    return PathFinder.find_spec(name, found.submodule_search_locations) if found else find_spec(name)
