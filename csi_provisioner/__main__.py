"""The program's first lines: ready for a signal, and for an odd environment, before anything else is loaded.

Of the standard library only what costs next to nothing is imported before that.
"""

import gc
import os
import resource
import signal
import sys
import time
import warnings

# Offsets that the standard library refuses: it would end the import of whatever asks for the local time.
WHOLE_DAY = 86_400
# Of the environment, what libraries read: it could end their import, or have metrics go to files.
OF_LIBRARIES = ("LOGURU_", "PROMETHEUS_")
# Open files: 64 connections of the endpoint, and many times what the rest has.
FILES = 1024


def main() -> int:
    """The program; returns its exit code."""
    # A container's first process never gets a signal that it has no handler for, so this comes before the imports.
    # Nothing has begun, so there is nothing to end; `cli` and the supervisor have their own later.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    # Else a connection gets the number of a closed stream, and what is written to that stream goes to the connection.
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, "w" if descriptor else "r", encoding="utf-8"))
        getattr(sys, name).reconfigure(errors="backslashreplace")  # the terminal's encoding may have no such letter
    # Errors of them are for tests: with these any library's would end the process.
    if any(option.startswith("e") for option in sys.warnoptions):
        warnings.simplefilter("default")
    for name in [name for name in os.environ if name.upper().startswith(OF_LIBRARIES)]:
        del os.environ[name]
    # As Go programs do: the lower of the two limits is for programs that cannot have many, and anybody may raise it.
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if few < (enough := FILES if most == resource.RLIM_INFINITY else min(most, FILES)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))
    if max(abs(time.timezone), abs(time.altzone)) >= WHOLE_DAY:
        os.environ["TZ"] = "UTC0"
        time.tzset()
    gc.disable()  # what is imported stays for good: to look at it again and again is a tenth of a start
    os.environ["LOGURU_AUTOINIT"] = "no"  # a sink of its own, which is not wanted, is dear to make
    from csi_provisioner import deferred

    deferred.defer()
    from csi_provisioner import cli

    del os.environ["LOGURU_AUTOINIT"]
    code = cli.main()
    if os.environ.get("PYTHONINSPECT"):  # it would take the end for an error, and read what to do from standard input
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
