"""Whether a fleet has a place for the secrets of a host: asked before a machine is enrolled, or made."""

from collections.abc import Callable
from pathlib import Path

from pyinfra.api.host import Host

from nixherd.base.errors import FleetError
from nixherd.base.names import many, some
from nixherd.nix.declared import Declared
from nixherd.pyinfra_glue.fleet_files import secrets_of
from nixherd.pyinfra_glue.hosts import context_of, fleet_host, limited_to
from nixherd.trust.secrets.other_tools import others_in
from nixherd.trust.secrets.places import Layout
from nixherd.trust.secrets.rules import CONFIG


def require_place_for_secrets(host: Host, of: Callable[[], Declared] | None = None) -> None:
    """FleetError where the host is to have secrets, by its configuration or its repository, and no `.sops.yaml` exists.

    Not where data says `secrets=none`. `of` tells what the host declares, which is evaluated otherwise.
    """
    fleet = context_of(host).fleet
    root, host_id = Path(fleet.path), fleet_host(host).id
    if host.data.get("secrets") == "none" or secrets_of(host, fleet):
        return
    declared = of() if of else _declared(host)
    found = [f"the fleet has {each}" for each in others_in(Layout.of(root).files)]
    names = sorted({secret.name for secret in declared.secrets})
    found += [f"its configuration declares {many(len(names), 'secret')} ({some(names)})"] if names else []
    found += [f"its configuration has {' and '.join(declared.others)}"] if declared.others else []
    found += [f"what its configuration declares is not known: {declared.problem}"] if declared.problem else []
    if found:
        remedy = "make one (docs/secrets.md), or say secrets=none (--no-secrets) and look after them yourself"
        raise FleetError(f"{host_id}: {'; '.join(found)}; and no {CONFIG} for sops exists; {remedy}")


def _declared(host: Host) -> Declared:
    """What the host's configuration declares, evaluated alone, for all hosts of the run at once."""
    return context_of(host).evaluator.declared(limited_to(host), fleet_host(host).id)
