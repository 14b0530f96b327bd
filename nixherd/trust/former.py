"""Which recipients are known to be a host's: each form of the keys that hosts.nix pins, or pinned before."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.ssh_keys import parse_public_key, same_key
from nixherd.fleet.git import Repository
from nixherd.fleet.models import HOSTS, Fleet
from nixherd.nix.edit import NixText
from nixherd.ssh.age import recipient_of
from nixherd.trust.secrets.keys import Recipient, age

_PINNED = re.compile(r'\bpublicKey\s*=\s*"((?:ssh|ecdsa)-[^"\n]+)"')
_COMMITS = 200  # the latest ones that changed hosts.nix


def forms_of(public_key: str) -> tuple[Recipient, ...]:
    """Return the recipients that a host key can be: by ssh-to-age first, and as it is; nothing for what is not a key.

    They are bare: without a comment.
    """
    try:
        key = parse_public_key(public_key)
    except ValueError:
        return ()
    try:
        return age(recipient_of(key)), age(key.bare)
    except ValueError:  # of a kind that has no age key
        return (age(key.bare),)


def known_keys(fleet: Fleet, host_id: str) -> frozenset[Recipient]:
    """Return what is known to be the host's, bare: by hosts.nix, and by its commits in git."""
    return frozenset(form for key in (*_pinned(fleet, host_id), *_in_commits(fleet, host_id)) for form in forms_of(key))


def keys_of_others(fleet: Fleet, host_id: str) -> frozenset[Recipient]:
    """Return the keys, bare, that hosts.nix pins for other hosts now."""
    others = (host.public_key for host in fleet.hosts.values() if host.id != host_id and host.public_key)
    return frozenset(form for key in others for form in forms_of(key))


def its_alone(fleet: Fleet, host_id: str) -> frozenset[Recipient]:
    """Return the keys, bare, that are known to be the host's and that hosts.nix pins for no other host now."""
    return known_keys(fleet, host_id) - keys_of_others(fleet, host_id)


def others_with(fleet: Fleet, host_id: str, public_key: str) -> Iterator[str]:
    """Yield the ids of the hosts on other machines for which hosts.nix pins this key."""
    for host in fleet.hosts.values():
        if (
            fleet.machine_of(host.id) != fleet.machine_of(host_id)
            and host.public_key
            and same_key(host.public_key, public_key)
        ):
            yield host.id


def _pinned(fleet: Fleet, host_id: str) -> Iterator[str]:
    host = fleet.hosts.get(host_id)
    if host is not None and host.public_key:
        yield host.public_key


def once_pinned(fleet: Fleet) -> frozenset[Recipient]:
    """Return the host keys, bare, that an earlier hosts.nix pinned, and the one of now does not."""
    pinned = {host.public_key for host in fleet.hosts.values() if host.public_key}
    now = {form for key in pinned for form in forms_of(key)}
    texts = (content.decode(errors="replace") for content in _earlier(fleet))
    then = {form for text in texts for key in set(_PINNED.findall(text)) for form in forms_of(key)}
    return frozenset(then - now)


def is_former(fleet: Fleet, name: str) -> bool:
    """Return whether an earlier hosts.nix had a host of this id."""
    for content in _earlier(fleet):
        if name.encode() in content:
            try:
                if NixText(HOSTS, content).mentions((name,)):
                    return True
            except FleetError:  # not written as it is edited here
                continue
    return False


def _in_commits(fleet: Fleet, host_id: str) -> Iterator[str]:
    for content in _earlier(fleet):
        try:
            written = NixText(HOSTS, content).written((host_id, "publicKey"))
        except FleetError:  # not written as it is edited here
            continue
        if written and len(written) > 2 and written[0] == written[-1] == '"':
            yield written[1:-1]


def _earlier(fleet: Fleet) -> tuple[bytes, ...]:
    """What hosts.nix was in its latest commits; none without git."""
    try:
        repository = Repository.around(Path(fleet.path))
        head = repository.full_head() if repository else ""
    except FleetError:  # without a commit; whoever needs git says what is wrong with it
        return ()
    return _versions(repository.directory, repository.prefix, head) if repository is not None else ()


@lru_cache(8)
def _versions(directory: Path, prefix: str, head: str) -> tuple[bytes, ...]:
    """What hosts.nix was in each of the latest commits that changed it; `head` is the one to begin with."""
    repository = Repository.around(directory)
    assert repository is not None, "its head is known"
    ids = repository.reachable(f"--max-count={_COMMITS}", head, "--", HOSTS)
    return tuple(repository.contents([f"{id}:{prefix}{HOSTS}" for id in ids], kind="blob").values())
