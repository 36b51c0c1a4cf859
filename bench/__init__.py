"""Measurements of the provisioner as a process of its own; `python -m bench --help`. Numbers for people, not tests."""
