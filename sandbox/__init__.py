"""The sandbox: an embedded Kubernetes API, an embedded CSI driver, and a demonstration that runs the real provisioner.

`api` and `driver` know nothing of the client side but the messages on the wire; only `demo` starts it.
"""
