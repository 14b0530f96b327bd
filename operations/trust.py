"""A machine's way into the fleet's trust: its key in the fleet and .sops.yaml, files encrypted to it, one commit."""

from functools import partial

from pyinfra import host

from nixherd.base.errors import FleetError
from nixherd.base.names import flag_of, path_below
from nixherd.base.ssh_keys import parse_public_key
from nixherd.fleet.load import load_fleet
from nixherd.locate.reach import Epoch
from nixherd.pyinfra_glue.fleet_files import EnrolledKey, admission_of, changed_files
from nixherd.pyinfra_glue.hosts import connector_of, context_of, executing, fleet_host
from nixherd.pyinfra_glue.installing import machine_of
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.pyinfra_glue.secrets_place import require_place_for_secrets
from nixherd.trust.enrol import Wanted, documented, protected
from nixherd.trust.recipients import pinned, trusted

DOCS = "docs/machines.md"
_JOINS, _IN_SERVICE = "fleet: {{ host }} joins", "fleet: {{ host }} is in service"


@operation()
def enroll(docs: bool = False, protect: bool = False) -> Change | NoChange:
    """Make the machine's host key a recipient of its secrets and pin it where the fleet keeps keys, with one commit.

    The key is the pinned one; for a VM that does not exist yet it is generated here, for a machine made elsewhere it is
    told by the guest agent, and proven, or read through the authenticated connection. `docs`: the overview as well;
    `protect`: its managed guest becomes readonly as well.
    """
    has_docs, is_protected = flag_of("docs", docs), flag_of("protect", protect)
    host_id = fleet_host(host).id
    require_place_for_secrets(host)
    key = EnrolledKey.of(host)

    def change(files: Wanted) -> Wanted:
        config = files.fleet.hosts[host_id]
        files = trusted(files, config, config.public_key or key.public, admission_of(host))
        files = protected(files, host_id) if is_protected else files
        if has_docs:
            place, given = host.data.get("docs_file") or DOCS, host.data.get("docs_template")
            template = path_below("docs_template", given) if given else None
            files = documented(files, path_below("docs_file", place), template)
        return files

    subject, otherwise = _IN_SERVICE if has_docs else _JOINS, f"{host_id} is enrolled"
    return changed_files(host, change, subject, otherwise=otherwise, before=key.ensure)


@operation()
def pin() -> Change | NoChange:
    """Pin the machine's host key where the fleet keeps keys and nothing else: as its guest agent tells it, proven by
    the machine, or read through the authenticated connection. One commit.
    """
    config = fleet_host(host)
    if config.public_key:
        return NoChange(f"{context_of(host).fleet.file} pins a key of {config.id}")
    known = EnrolledKey.of(host).known
    if known is None:
        raise FleetError(f"{config.id}: no running guest tells its key; start it, or enroll and provision it")
    subject = "fleet: the host key of {{ host }} is pinned"
    return changed_files(host, lambda files: pinned(files, config, known), subject, otherwise=f"{config.id} is pinned")


@operation()
def forget_key() -> Change | NoChange:
    """Delete the machine's private key here, once the fleet pins it and the machine has proved that it holds it."""
    host_id, keys = fleet_host(host).id, context_of(host).keys
    held = keys.held(host_id)
    if held is None:
        return NoChange(f"no private key of {host_id} is here")
    if executing(host):
        machine_of(host)
        place = connector_of(host).reach()
        fleet = load_fleet(keys.fleet.path)
        pinned = fleet.hosts[host_id].public_key
        blob = parse_public_key(held.public).blob
        if pinned is None or parse_public_key(pinned).blob != blob:
            raise FleetError(
                f"{host_id}: {fleet.file} does not pin the key of which the private half is here; enroll it"
            )
        if place.epoch is not Epoch.FINAL or parse_public_key(place.host_key).blob != blob:
            raise FleetError(f"{host_id}: the machine has not shown that it holds its key; its private half stays here")
    return Change(f"delete the private key of {host_id} here; the machine has it", partial(keys.forget, host_id))
