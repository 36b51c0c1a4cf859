"""Every right of `kustomize/`, and what is missing without it."""
