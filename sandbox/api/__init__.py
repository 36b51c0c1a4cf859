"""An embedded Kubernetes API: generic storage, real HTTP, and the small part of the control plane that claims need.

A fake for demonstrations and tests. It holds objects as plain dicts and shares no code with the client side, so that
the two can disagree. `server.serve` starts it.
"""
