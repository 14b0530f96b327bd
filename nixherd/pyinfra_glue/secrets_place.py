"""Whether a fleet has a place for the secrets of a host: asked before a machine is enrolled, or made."""

from collections.abc import Iterator
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


def require_place_for_secrets(host: Host, declared: Declared | None = None) -> None:
    """FleetError where the host is to have secrets, by its configuration or its repository, and no `.sops.yaml` exists.

    Not where data says `secrets=none`. Without `declared` the configuration is evaluated, and the repository looked at.
    """
    if host.data.get("secrets") == "none":
        return
    if declared is not None and not (declared.all_secrets or declared.others or declared.problem):
        return
    fleet, host_id = context_of(host).fleet, fleet_host(host).id
    if secrets_of(host, fleet):
        return
    others = [f"the fleet has {each}" for each in others_in(Layout.of(Path(fleet.path)).files)]
    if found := [*others, *_reasons(declared or _declared(host))]:
        remedy = "make one (`nixherd secrets init`), or say secrets=none (--no-secrets) and look after them yourself"
        raise FleetError(f"{host_id}: {'; '.join(found)}; and no {CONFIG} for sops exists; {remedy}")


def _reasons(declared: Declared) -> Iterator[str]:
    names = sorted({secret.name for secret in declared.all_secrets})
    if names:
        yield f"its configuration declares {many(len(names), 'secret')} ({some(names)})"
    if declared.others:
        yield f"its configuration has {' and '.join(declared.others)}"
    if declared.problem and not names:
        yield f"what its configuration declares is not known: {declared.problem}"


def _declared(host: Host) -> Declared:
    """What the host's configuration declares, evaluated alone, for all hosts of the run at once."""
    return context_of(host).evaluator.declared(limited_to(host), fleet_host(host).id)
