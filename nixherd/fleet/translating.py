"""What a hosts.nix of another shape calls our attributes: names that people use, tried on its values. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nixherd.base.names import many
from nixherd.fleet.beside import Beside
from nixherd.fleet.nix_values import NixOther, NixPath, nix_type
from nixherd.fleet.schema import Field, Place, fields_of
from nixherd.fleet.validate import is_host

Way = tuple[str, ...]

# By our names, what is looked for in this order; a dot is a step into a set.
_WORDS: Mapping[str, str] = {
    "addresses": "ip ipv4 ipAddress ip_address address addr targetHost deployment.targetHost sshHostName sshHost "
    "hostAddress network.ip networking.ip network.address ssh.host ssh.hostname ssh.address fqdn ipv6",
    "hostname": "hostName networking.hostName host_name machineName",
    "user": "username userName sshUser targetUser deployment.targetUser ssh.user remoteUser adminUser login admin",
    "port": "sshPort targetPort deployment.targetPort ssh.port ssh_port",
    "jump": "jumpHost proxyJump ProxyJump ssh.jump ssh.proxyJump",
    "publicKey": "pubkey pubKey hostKey sshHostKey hostPublicKey hostPubKey hostPubkey public_key host_key "
    "sshHostPublicKey ssh.hostKey ssh.publicKey ssh.pubkey keys.host",
    "authorizedKeys": "authorized_keys sshAuthorizedKeys sshKeys authorizedSshKeys ssh.authorizedKeys",
    "tags": "groups labels deployment.tags roles",
    "sshAlias": "alias shortName",
    "homeDirectory": "homeDir home",
    "build_on": "buildOn deployment.buildOn",
}
# Left out of a translation, these would protect less than their author believes.
_PROTECT = ("access", "healthChecks", "wave", "require_signed")


@dataclass(frozen=True, slots=True)
class Translation:
    """`fields` are ways to values below an entry by our names, as nixherd.nix has them; an empty one leaves it out.

    `unfit` are names that may mean one of ours, with why they cannot; `unread` those that mean nothing to us.
    """

    fields: Mapping[str, Way]
    unfit: Mapping[str, str]
    unread: tuple[str, ...]


def entries_in(hosts: Any) -> dict[str, dict[str, Any]] | None:
    """The entries of what hosts.nix comes to; None where that is something else than a set of sets."""
    if not isinstance(hosts, dict):
        return None
    entries = {name: entry for name, entry in hosts.items() if is_host(name)}
    return entries if all(isinstance(entry, dict) for entry in entries.values()) else None


def translation(entries: Mapping[str, Mapping[str, Any]]) -> Translation:
    """Find what these entries call our attributes; a name counts where its values fit in every entry that has it."""
    fields: dict[str, Way] = {}
    unfit: dict[str, str] = {}
    for name, field in fields_of(Place.HOST).items():
        here = _why_unfit(entries, field, (name,))
        if here == "":
            continue
        for way in map(_way, _WORDS.get(name, "").split()):
            why = _why_unfit(entries, field, way)
            if why == "":
                fields[name] = way
                break
            if why is not None:
                unfit[".".join(way)] = why
        if here is not None:
            unfit[name] = here
            if name not in fields and name not in _PROTECT:
                fields[name] = ()
    taken = {way[0] for way in fields.values() if way}
    known = {*fields_of(Place.HOST), *taken, *(name.partition(".")[0] for name in unfit)}
    others = sorted({name for entry in entries.values() for name in entry} - known)
    return Translation(fields, unfit, tuple(name for name in others if is_host(name)))


def _way(text: str) -> Way:
    return tuple(text.split("."))


def _why_unfit(entries: Mapping[str, Mapping[str, Any]], field: Field, way: Way) -> str | None:
    """Why the values at a way are not this attribute's: nothing where they are, None where there are none."""
    reasons = [_problem(entry, name, field, way) for name, entry in entries.items()]
    seen = [reason for reason in reasons if reason is not None]
    return next((reason for reason in seen if reason), "") if seen else None


def _problem(entry: Mapping[str, Any], host: str, field: Field, way: Way) -> str | None:
    if way == (field.name,):
        value = entry.get(field.name)
    else:
        value = Beside(fields={field.name: way}).translated(entry)[field.name]
    if value is None:
        return None
    problem = next(field.type.problems(value), None)
    return f"{host}: {problem.what}" if problem else ""


def shape_of(hosts: Any) -> str:
    """Say in a few words what a hosts.nix is, without any value of it."""
    entries = entries_in(hosts)
    if entries is None:
        kinds = {nix_type(each) for each in hosts.values()} if isinstance(hosts, dict) else set[str]()
        return f"a set of {' and '.join(sorted(map(_plural, kinds)))}" if kinds else nix_type(hosts)
    if not entries:
        return "a set without hosts"
    return f"{many(len(entries), 'host')} with {', '.join(_names(entries)) or 'no attributes'}"


def _plural(kind: str) -> str:
    return f"{kind.split(' ', 1)[-1]}s" if kind != "null" else kind


def _names(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for entry in entries.values():
        for name, value in entry.items():
            is_set = isinstance(value, dict) and not isinstance(value, (NixPath, NixOther))
            seen |= dict.fromkeys(f"{name}.{inner}" for inner in value) if is_set and value else {name: None}
    yield from seen
