"""Secret files: what `nixherd secrets status` says of them."""

from pathlib import Path

from nixherd.fleet.changeset import interrupted
from nixherd.fleet.models import Fleet
from nixherd.gate.results import Found, Look
from nixherd.trust.secrets.plan import People
from nixherd.trust.secrets.store import Store

DIRECTORY = "secrets"
_INTERRUPTED = "a run was interrupted while it published its changes; `nixherd secrets apply` finishes them"


def check(root: Path, fleet: Fleet) -> Look:
    """Files that are not encrypted, that no rule covers, or that others than their rule names can decrypt.

    FleetError where the rules cannot be read.
    """
    found = [Found.of_text(_INTERRUPTED)] if interrupted(root) else []
    if not (root / DIRECTORY).exists():
        return Look(found, f"there is no {DIRECTORY}/")
    store = Store.load(root, DIRECTORY)
    plan = store.plan(People.of(fleet, store.rules))
    found += [Found.of_text(each, str(root)) for each in plan.findings]
    for rekey in plan.rekeys:
        what = f"its recipients are not those that its rule names: {', '.join(rekey.names)}"
        found.append(Found(what, store.path(rekey.path), remedy="`nixherd secrets apply` encrypts it anew"))
    return Look(found, f"{len(store.files)} files")
