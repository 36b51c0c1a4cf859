"""The tables of docs/reference/rights.md: what tests have seen without each right, and with published roles."""

from itertools import takewhile

from csi_provisioner.planning.rights import Right
from tests.cluster.controlplane import REPOSITORY
from tests.rights.granted import Granted

FILE = REPOSITORY / "docs" / "reference" / "rights.md"
WITHOUT = "| Right | In | Without it, not seen any more |\n|---|---|---|\n"
PUBLISHED = "| Roles | From, at | Volume journal | Standby leads | Ready | Goes without |\n|---|---|---|---|---|---|\n"


def without(right: Granted, lacking: set[str]) -> str:
    kind = Right(right.verb, right.resource, right.group)
    return f"| {kind} | `{right.folder}` | {'; '.join(sorted(lacking))} |"


def rows(head: str) -> list[str]:
    return list(takewhile(lambda line: line.startswith("|"), FILE.read_text().partition(head)[2].splitlines()))


def put(head: str, *made: str) -> None:
    """In the places of the rows with the same first cell, or at the end."""
    there = rows(head)
    kept = {row.split("|")[1]: row for row in there} | {row.split("|")[1]: row for row in made}
    before, _, rest = FILE.read_text().partition(head)
    after = rest.splitlines()[len(there) :]
    FILE.write_text(before + head + "\n".join([*kept.values(), *after]) + "\n")
