"""A provisioner on every node: which claims and volumes are this node's (node-deployment.md)."""
