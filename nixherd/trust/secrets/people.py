"""What recipients are called: hosts by hosts.nix, everybody else by what `.sops.yaml` calls them."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from nixherd.base.ssh_keys import parse_public_key
from nixherd.fleet.models import Fleet, Host
from nixherd.ssh.age import ED25519, recipient_of
from nixherd.trust.secrets.keys import Kind, Recipient, age

RSA = "ssh-rsa"
_NAMELESS = (Kind.AGE, Kind.PGP)  # what others are called says where they are, and nothing of a person


class Hosts(Mapping[Recipient, str]):
    """Hosts' ids by their recipients, which are found however they are written: an SSH key with any comment."""

    def __init__(self, ids: Mapping[Recipient, str]) -> None:
        self._ids = {key.bare: host_id for key, host_id in ids.items()}

    @override
    def __getitem__(self, key: Recipient) -> str:
        return self._ids[key.bare]

    @override
    def __iter__(self) -> Iterator[Recipient]:
        return iter(self._ids)

    @override
    def __len__(self) -> int:
        return len(self._ids)


@dataclass(frozen=True, slots=True)
class People:
    """Those whom recipients belong to."""

    hosts: Mapping[Recipient, str]
    """by recipient, the host's id"""
    others: Mapping[str, str] = field(default_factory=dict)
    """by a recipient's value, the name there; hosts may be among them"""

    def host(self, recipient: Recipient) -> str | None:
        """The id of the host that this is the key of, in any form."""
        return self.hosts.get(recipient)

    def name(self, recipient: Recipient) -> str:
        return self.hosts.get(recipient) or self._other(recipient) or recipient.label

    def knows(self, recipient: Recipient) -> bool:
        """Whether it says of itself, or somebody does, whose it is."""
        is_named = recipient in self.hosts or self._other(recipient) is not None
        return is_named or recipient.kind not in _NAMELESS or (recipient.bare != recipient and recipient.is_ssh)

    def _other(self, recipient: Recipient) -> str | None:
        return self.others.get(recipient.value) or self.others.get(recipient.bare.value)


def recipients_of_hosts(fleet: Fleet) -> Hosts:
    """By recipient, the id of each host whose key is known and can be one, in every form that it can have."""
    return Hosts({key: host.id for host in fleet.hosts.values() for key in _forms(host)})


def recipient_of_host(host: Host) -> Recipient | None:
    """The age recipient of the host's key; None where that is not known, or of a kind that cannot be one."""
    key = host.public_key
    return age(recipient_of(key)) if key is not None and key.startswith(f"{ED25519} ") else None


def _forms(host: Host) -> Iterator[Recipient]:
    """The host's key as an age recipient, as it is, and as sops-nix makes a PGP key of one of RSA."""
    if converted := recipient_of_host(host):
        yield converted
    if host.public_key is not None and host.public_key.startswith((f"{ED25519} ", f"{RSA} ")):
        yield age(host.public_key).bare
    if host.public_key is not None and host.public_key.startswith(f"{RSA} "):
        yield Recipient(Kind.PGP, pgp_fingerprint(host.public_key))


def pgp_fingerprint(public: str) -> str:
    """Return the fingerprint of the PGP key that sops-nix and ssh-to-pgp make of an RSA key.

    Made at time 0; the rest is RFC 4880 §12.2 and §5.5.2. ValueError for another key.
    """
    return hashlib.sha1(pgp_packet(public), usedforsecurity=False).hexdigest().upper()


def pgp_packet(public: str) -> bytes:
    """Return that key as a packet. ValueError as above."""
    key = parse_public_key(public)
    if key.type != RSA:
        raise ValueError(f"it is an {key.type} key; PGP keys come from {RSA} keys only")
    _, exponent, modulus = _fields(base64.b64decode(key.blob))
    body = b"\x04" + bytes(4) + b"\x01" + _mpi(modulus) + _mpi(exponent)
    return b"\x99" + len(body).to_bytes(2, "big") + body


def _fields(blob: bytes) -> Iterator[bytes]:
    """The strings of an SSH public key (RFC 4253 §6.6)."""
    while blob:
        length = int.from_bytes(blob[:4], "big")
        yield blob[4 : 4 + length]
        blob = blob[4 + length :]


def _mpi(number: bytes) -> bytes:
    value = int.from_bytes(number, "big")
    bits = value.bit_length()
    return bits.to_bytes(2, "big") + value.to_bytes(-(-bits // 8), "big")
