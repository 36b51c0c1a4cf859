"""The sandbox: an embedded Kubernetes API, an embedded CSI driver, and a demonstration that runs the real provisioner against them."""
