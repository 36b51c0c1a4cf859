"""`csi-provisioner orphans`: volumes that nobody owns, with the evidence; deletes or adopts one of them (design.md 8).

Exit codes: 0 none (or done), 3 some, 1 could not ask or was refused, 2 the flags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csi_provisioner import flags
from csi_provisioner.fatal import Fatal
from csi_provisioner.flagset import BOOLEAN, TEXT, Flag, Values
from csi_provisioner.logs import escaped
from csi_provisioner.planning import evidence, quantity
from csi_provisioner.planning.evidence import Finding, Known, Report
from csi_provisioner.settings import Settings

from .asking import Asking, asking
from .entry import OUTPUT, CannotAskError, Command, say, say_json, show, table
from .manifest import manifest
from .removing import Removal

DELETE = Flag("delete", TEXT, "", "Look again at the volume of this id, and delete it in the storage backend.")
ADOPT = Flag("adopt", TEXT, "", "Print a PersistentVolume for the volume of this id.")
YES = Flag("yes", BOOLEAN, False, "Delete without asking.")
FORCE = Flag("force", BOOLEAN, False, "Go on where the lists look wrong, or where only the driver's list has the id.")
SECRET = Flag("secret", TEXT, "", "NAMESPACE/NAME of the secret for --delete, where none was noted.")
FLAGS = flags.FLAGS.extended("Orphans", OUTPUT, DELETE, ADOPT, YES, FORCE, SECRET)
USAGE = (
    "Usage: csi-provisioner orphans [flags]\n\nLists the volumes of a CSI driver that no PersistentVolume names. The "
    "other flags are those of the\nprovisioner: how to reach driver and cluster, the prefix of volume names, the "
    "namespace of the lease."
)
COMMAND = Command("orphans", FLAGS, USAGE)
# Of the JSON: a field is only ever added
# Exit code, apart from those of any failure
FOUND = 3


@dataclass(frozen=True, kw_only=True)
class Wanted:
    json: bool
    delete: str
    adopt: str
    yes: bool
    force: bool
    secret: str


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    return COMMAND.run(arguments, environ, wanted, answer)


def wanted(values: Values) -> Wanted:
    secret = values[SECRET]
    if values[DELETE] and values[ADOPT]:
        raise Fatal("only one of --delete and --adopt can be given", 2)
    if secret and secret.count("/") != 1:
        raise Fatal(f"--secret={secret}: it must be NAMESPACE/NAME", 2)
    return Wanted(
        json=values[OUTPUT] == "json",
        delete=values[DELETE],
        adopt=values[ADOPT],
        yes=values[YES],
        force=values[FORCE],
        secret=secret,
    )


async def answer(settings: Settings, wanted: Wanted) -> int:
    async with asking(settings) as asked:
        known = await asked.known()
        found = evidence.report(known)
        doubt = evidence.doubt(known, found)
        # A list that is wrong makes orphans of volumes that are in use.
        if doubt and not wanted.force:
            raise CannotAskError(
                f"{doubt}: is this the right cluster, and the right driver? --force goes on all the same"
            )
        if wanted.delete:
            removal = Removal(
                asked=asked, volume_id=wanted.delete, yes=wanted.yes, force=wanted.force, secret=wanted.secret
            )
            return await removal.run(found)
        if wanted.adopt:
            return _adopted(asked, known, found, wanted.adopt)
        (_print_json if wanted.json else _print_text)(asked, known, found)
        return FOUND if found.orphans else 0


def _adopted(asked: Asking, known: Known, found: Report, volume_id: str) -> int:
    if other := evidence.owner(known.volumes, volume_id):
        raise CannotAskError(f"PersistentVolume {other} names volume {volume_id} already")
    finding = found.find(volume_id)
    # What only the list has may be adopted too: that harms nobody, its reclaim policy is Retain.
    if finding is None:
        listed = (known.listed or {}).get(volume_id)
        if listed is None:
            raise CannotAskError(f"nothing is known of a volume {volume_id}")
        finding = Finding(volume_id, "", volume=listed.volume)
    text, assumed = manifest(finding, asked.name)
    show(text)
    for line in assumed:
        say(line)
    return 0


# ---- what is shown


def _print_json(asked: Asking, known: Known, found: Report) -> None:
    shown = {
        "driver": asked.name,
        "orphans": [
            {
                "volumeID": finding.volume_id,
                "persistentVolume": finding.name,
                "claim": finding.claim,
                "found": finding.found,
                "evidence": finding.evidence,
                "capacityBytes": finding.capacity,
                "publishedNodes": finding.published,
            }
            for finding in found.orphans
        ],
        "inProgress": found.in_progress,
        "listed": None if known.listed is None else len(known.listed),
        "unknown": len(found.unknown),
        "notes": asked.notes,
    }
    say_json(shown)


def _print_text(asked: Asking, known: Known, found: Report) -> None:
    rows = [["VOLUME ID", "PERSISTENTVOLUME", "CLAIM", "SIZE", "FOUND IN", "EVIDENCE"]]
    for finding in found.orphans:
        size = quantity.format(finding.capacity) if finding.capacity else ""
        row = [finding.volume_id or "unknown", finding.name, finding.claim, size, ",".join(finding.found)]
        rows.append([escaped(text) for text in (*row, "; ".join(finding.evidence))])
    if found.orphans:
        show(table(rows))
    else:
        show(f"No volume of driver {asked.name} is without an owner.\n")
    if found.in_progress:
        say(f"{found.in_progress} volumes are being made for claims that wait for them")
    if found.unknown:
        say(
            f"{len(found.unknown)} of {len(known.listed or ())} volumes that the driver lists are named by nothing "
            "here; another cluster may own them"
        )
    for note in asked.notes:
        say(note)
