"""The quality gate's look at the secret files: what `nixherd secrets status` tells of them, as findings."""

from pathlib import Path

from nixherd.base.errors import Finding, Severity
from nixherd.fleet.models import Fleet
from nixherd.trust.secrets.store import People, Store

_SECRETS = "secrets"


def look_at_secrets(root: Path, fleet: Fleet) -> tuple[list[str], str]:
    """Find what is wrong with the files in `root`, and whose recipients differ from their rules; and say what was read.

    Raises FleetError where the rules or the files cannot be read.
    """
    if not (root / _SECRETS).exists():
        return [], f"{_SECRETS}/ does not exist"
    store = Store.load(root, _SECRETS)
    plan = store.plan(People.of(fleet, store.rules))
    findings: list[str] = [*plan.findings]
    for rekey in plan.rekeys:
        what = f"its recipients are not those that its rule names: {', '.join(rekey.names)}"
        remedy = "`nixherd secrets apply` encrypts it anew"
        findings.append(Finding(Severity.ERROR, store.path(rekey.path), "", what, remedy))
    return findings, f"{len(store.files)} files"
