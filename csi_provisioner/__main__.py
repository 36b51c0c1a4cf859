"""`python -m csi_provisioner`."""

import sys

from csi_provisioner.cli import main

if __name__ == "__main__":
    sys.exit(main())
