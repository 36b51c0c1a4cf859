"""`python -m sandbox`: the demonstration."""

import sys


def _main() -> int:
    try:
        # Importing all of it takes a moment, in which Ctrl-C is no reason for a traceback either.
        from sandbox.demo import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(_main())
