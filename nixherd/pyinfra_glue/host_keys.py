"""The host key with which a machine comes into the fleet's trust."""

from dataclasses import dataclass, field

from pyinfra.api.host import Host

from nixherd.errors import FleetError, Refused, Usage
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import GuestType
from nixherd.pyinfra_glue.hosts import connector_of, executing, fleet_host, keys_of, vm_of
from nixherd.pyinfra_glue.installing import machine_for, machine_of
from nixherd.ssh.keys import HOST_KEY_FILE, generate_ed25519, parse_public_key


@dataclass(frozen=True)
class EnrolledKey:
    """`known` is the public half with its comment; a key that is to be generated shows when `ensure` has made it."""

    known: str | None
    host_id: str
    keys: HostKeys = field(repr=False)
    provisional: str = ""

    @classmethod
    def of(cls, host: Host) -> "EnrolledKey":
        """The key that answers, or will answer, on the machine. FleetError when none is known."""
        keys, config = keys_of(host), fleet_host(host)
        comment = f"root@{config.hostname}"
        if pinned := keys.pinned(config.id):
            return cls(pinned, config.id, keys)
        vm = vm_of(host)
        if vm is None or vm.type is not GuestType.QEMU or not vm.is_managed:
            return cls(f"{_read(host)} {comment}", config.id, keys)
        if told := connector_of(host).told_key():
            return cls(f"{parse_public_key(told).bare} {comment}", config.id, keys)
        return cls(None, config.id, keys, generate_ed25519(comment).public)

    @property
    def public(self) -> str:
        """The public half; until it is made, one that nobody has stands for it in plans."""
        if self.known is not None:
            return self.known
        pair = self.keys.held(self.host_id)
        return pair.public if pair else self.provisional

    def ensure(self) -> None:
        """Generate the key here, where it is to be."""
        if self.known is None:
            self.keys.ensure(self.host_id)


def _read(host: Host) -> str:
    """The key of a machine that was made elsewhere, through the authenticated connection."""
    host_id = fleet_host(host).id
    if connector_of(host).connected or executing(host):
        machine_of(host)
        done = machine_for(host).run(f"cat {HOST_KEY_FILE}")
        if done.status == 0 and done.stdout.strip():
            try:
                key = parse_public_key(done.stdout.strip())
            except ValueError as error:
                raise FleetError(f"{host_id}: its {HOST_KEY_FILE} does not hold a public key: {error}") from None
            if other := keys_of(host).owner(done.stdout.strip(), but=host_id):
                raise Refused(f"{host_id} tells the host key of {other} as its own; find out who is root there")
            return key.bare
    raise FleetError(f"{host_id}: no host key is known; install it first, then run deploys/post_provision.py")


def rules_said(host: Host) -> list[str | int] | None:
    """Data `secrets_rules`: which creation rules are meant. Usage when it is something else."""
    given = host.data.get("secrets_rules")
    if given is None:
        return None
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, (str, int)) for each in given):
        raise Usage("secrets_rules is a list of rules' numbers or path_regexes")
    return list(given)
