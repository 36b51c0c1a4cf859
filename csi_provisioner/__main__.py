"""The program's first lines: ready for a signal, and for an odd environment, before anything else is loaded.

Of the standard library only what costs next to nothing is imported before that.
"""

import os
import resource
import signal
import sys
import time

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
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in [name for name in os.environ if name.upper().startswith(OF_LIBRARIES)]:
        del os.environ[name]
    # As Go programs do: the lower of the two limits is for programs that cannot have many, and anybody may raise it.
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if few < (enough := FILES if most == resource.RLIM_INFINITY else min(most, FILES)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))
    if max(abs(time.timezone), abs(time.altzone)) >= WHOLE_DAY:
        os.environ["TZ"] = "UTC0"
        time.tzset()
    from csi_provisioner import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
