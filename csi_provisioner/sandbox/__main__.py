"""`python -m csi_provisioner.sandbox`: the demonstration."""

import sys

from csi_provisioner.sandbox.demo import main

if __name__ == "__main__":
    sys.exit(main())
