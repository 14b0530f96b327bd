"""The quality gate's look at the secret files: what `nixherd secrets status` tells of them, as findings."""

from pathlib import Path

from nixherd.fleet.models import Fleet
from nixherd.gate.results import Found, Look
from nixherd.trust.secrets.store import People, Store

_SECRETS = "secrets"


def look_at_secrets(root: Path, fleet: Fleet) -> Look:
    """Find what is wrong with the files in `root`, and whose recipients differ from their rules.

    Raises FleetError where the rules or the files cannot be read.
    """
    if not (root / _SECRETS).exists():
        return Look([], f"{_SECRETS}/ does not exist")
    store = Store.load(root, _SECRETS)
    plan = store.plan(People.of(fleet, store.rules))
    findings = [Found.of_text(each, str(root)) for each in plan.findings]
    for rekey in plan.rekeys:
        what = f"its recipients are not those that its rule names: {', '.join(rekey.names)}"
        findings.append(Found(what, store.path(rekey.path), remedy="`nixherd secrets apply` encrypts it anew"))
    return Look(findings, f"{len(store.files)} files")
