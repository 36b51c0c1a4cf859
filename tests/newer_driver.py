#!/usr/bin/env python3
"""Runs the comparison's harness with a driver newer than this program: `PYTHON=tests/newer_driver.py check ...`.

The harness is taken over unchanged; what it calls Python is this file. Its driver then answers every message, also
those within others, with a number and bytes in a field 999, and says that it has capabilities of number 99.
"""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

EXTRA = b"\xb8\x3e\x07" + b"\xba\x3e\x03new"
"""Field 999 as a number, and once more as bytes."""
CAPABILITY = b"\x0a\x04\x0a\x02\x08\x63"
"""One more in the list of field 1: its own field 1 has a type of number 99. So for the plugin and the controller."""


def with_unknown(message: Any) -> None:
    """Adds to a message of protobuf's own implementation, and to all within it, what no version of CSI has."""
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                with_unknown(inner)
    message.MergeFromString(EXTRA)


def encoded(message: Any) -> bytes:
    with_unknown(message)
    more = CAPABILITY if message.DESCRIPTOR.name.endswith("CapabilitiesResponse") else b""
    encoded_: bytes = message.SerializeToString()
    return encoded_ + more


def main() -> None:
    script = Path(sys.argv[1])
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(script.parent))
    if script.name == "run.py":
        grpc, driver = importlib.import_module("grpc"), importlib.import_module("driver")

        class NewerDriver(driver.Driver):  # type: ignore[misc, name-defined]
            def _handler(self, library: Any, method: Any) -> Any:
                handler = super()._handler(library, method)
                return grpc.unary_unary_rpc_method_handler(handler.unary_unary, handler.request_deserializer, encoded)

        vars(driver)["Driver"] = NewerDriver
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
