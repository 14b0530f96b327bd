"""`nixherd trust`: a machine's host key, learnt in a way that proves it, and pinned."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import paramiko

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import expanded
from nixherd.base.ssh_keys import PublicKey, parse_public_key
from nixherd.cli.front import Front, pass_front
from nixherd.cli.host_rows import report_rows, rows_of, run_for
from nixherd.cli.machines import only_one
from nixherd.cli.output import can_ask, progress
from nixherd.cli.parameters import Text, commit_data, committing
from nixherd.fleet.changeset import Done, changing
from nixherd.fleet.models import Host
from nixherd.locate.keyscan import PORT, key_at, key_on
from nixherd.locate.known_keys import Known, certified, known, preferred, usual_files
from nixherd.locate.reach import addresses
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.hops import connected
from nixherd.trust.recipients import pinned
from nixherd.trust.secrets.store import Secrets

PIN = "nixherd.operations.trust.pin"
_FINGERPRINT = re.compile(r"(?:SHA256:)?([A-Za-z0-9+/]{43})=?")


def _fingerprint(text: str) -> str:
    """As ssh-keygen prints it. ValueError for what is none."""
    if not (found := _FINGERPRINT.fullmatch(text)):
        raise ValueError(f"{text} is not a fingerprint; write it as ssh-keygen -l prints it: SHA256: and 43 characters")
    return f"SHA256:{found[1]}"


@click.command()
@click.argument("host")
@click.option(
    "--fingerprint",
    type=Text("fingerprint", _fingerprint),
    metavar="SHA256:…",
    help="Of the key, as its console or its owner says.",
)
@click.option("--known-hosts", "files", multiple=True, metavar="FILE", help="Else the usual ones; may be repeated.")
@click.option("--address", metavar="NAME|ADDRESS", help="Under which it is known there; else as the fleet has it.")
@committing
@pass_front
def trust(
    front: Front,
    /,
    host: str,
    fingerprint: str | None,
    files: Sequence[str],
    address: str | None,
    commit: bool,
    message: str | None,
    data: Sequence[str],
) -> int:
    """Pin the key of a machine that has none: learnt in a way that proves it, never on first use.

    A guest tells it through its agent, and proves that it is that guest. Any other machine is known by your known_hosts
    files: an entry is pinned once its fingerprint is confirmed (typed as --fingerprint, or on the terminal); a
    certificate that it shows counts where an authority is named there.
    """
    host_id = only_one(front, host)
    front.complete([host_id])
    config = front.fleet.hosts[host_id]
    if config.public_key:
        raise Usage(
            f"{host_id}: {front.fleet.file} pins a key of it; take that out first if the machine has another one"
        )
    if front.keys.held(host_id):
        raise Usage(f"{host_id}: its key was generated here for its installation; `nixherd enroll {host_id}` pins it")
    if front.fleet.vm_of(host_id) and not (fingerprint or files or address):
        told = [*commit_data(message, commit=commit), *data]
        ended = run_for(front, [PIN], [host_id], told, dry=front.dry_run)
        return report_rows(front, ended, {}, rows_of(ended, dry=front.dry_run))
    if data:
        raise Usage(f"--data {data[0]}: is for a guest whose agent is asked; leave it out")
    key, how = _learnt(front, config, [expanded(each) for each in files], address, fingerprint)
    line = f"{key.bare} root@{config.hostname}"
    if front.dry_run:
        _show(front, host_id, key, how, pinned(Wanted(front.fleet, Secrets(front.root)), config, line), None)
        return 0
    recording = front.recording(host_id)
    with recording, changing(front.root, recording.begin) as changeset, progress("trust") as tell:
        front.wrote = changeset.resume(tell) is not None
        change = pinned(Wanted(front.fleet, Secrets(front.root)), config, line)
        text = message or f"fleet: the host key of {host_id} is pinned\n\n{how}"
        done = publish(changeset, change, text, commit=commit, say=tell)
    front.wrote = True
    _show(front, host_id, key, how, change, done)
    return 0


def _show(front: Front, host_id: str, key: PublicKey, how: str, change: Wanted, done: Done | None) -> None:
    document: dict[str, Any] = {"host": host_id, "key": key.bare, "fingerprint": key.fingerprint, "how": how}
    document |= {"steps": change.steps, "files": done.paths if done else change.paths}
    document |= {"changed": done is not None, "commit": done.commit if done else None}
    would = "" if done else "would "
    lines = [f"{host_id}: {would}{step}" for step in change.steps]
    lines = [f"{host_id}: {key.type} {key.fingerprint}, {how}", *lines]
    front.show(document, lines + ([f"commit {done.commit}"] if done and done.commit else []))


def _learnt(
    front: Front, host: Host, files: Sequence[Path], address: str | None, fingerprint: str | None
) -> tuple[PublicKey, str]:
    """The machine's key, and how it is known to be. Usage or FleetError where nobody here knows it."""
    places = [address] if address else addresses(host)
    names = list(dict.fromkeys([*places, host.hostname, host.id, *([host.ssh_alias] if host.ssh_alias else [])]))
    searched = list(files) or usual_files()
    if missing := [path for path in files if not path.is_file()]:
        raise Usage(f"{missing[0]}: no such file")
    found = known(searched, names, host.port or PORT)
    # a certificate is read by ssh-keyscan, which knows of no hops
    if not (fingerprint or host.jump) and (authorities := [each for each in found if each.is_authority]):
        for place in places:
            if told := certified(authorities, names, place, host.port or PORT):
                return told.key, f"certified by the authority in {told.authority.where}"
    keys = preferred(found)
    if fingerprint:
        return _confirmed(front, host, found, places, fingerprint)
    if not keys:
        looked = ", ".join(map(str, searched)) or "no known_hosts file"
        raise FleetError(
            f"{host.id}: nobody here knows a host key of it (looked for {', '.join(names)} in {looked}); read it on "
            "its console (ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub) and say it with --fingerprint"
        )
    shown = "; ".join(f"{each.key.type} {each.key.fingerprint} ({each.where}, as {each.name})" for each in keys)
    if len(keys) > 1:
        raise Usage(f"{host.id}: several keys are known: {shown}; say which one it has with --fingerprint")
    if not can_ask():
        raise Usage(f"{host.id}: {shown}: confirm it with --fingerprint, as its console or its owner says it")
    if not click.confirm(f"{host.id}: {shown}\nIs that what its console or its owner says?", err=True):
        raise Usage(f"{host.id}: not confirmed; nothing was changed")
    return keys[0].key, f"known in {keys[0].where} and confirmed"


def _confirmed(
    front: Front, host: Host, found: Sequence[Known], places: Sequence[str], fingerprint: str
) -> tuple[PublicKey, str]:
    """The key with this fingerprint that is known, or that the machine shows. Usage where none has it."""
    known_here = [each for each in found if not each.is_authority]
    for each in known_here:
        if each.key.fingerprint == fingerprint:
            return each.key, f"known in {each.where} and confirmed by its fingerprint"
    seen = [f"{each.key.fingerprint} ({each.where})" for each in known_here]
    for place in places:
        try:
            with connected(front.fleet, front.keys, host, place) as connection:
                shown = parse_public_key(key_on(connection) if connection else key_at(place, host.port or PORT))
        except (OSError, paramiko.SSHException, EOFError, ValueError) as error:
            seen.append(f"no key at {place} ({error or type(error).__name__})")
            continue
        if shown.fingerprint == fingerprint:
            return shown, f"shown at {place} and confirmed by its fingerprint"
        seen.append(f"{shown.fingerprint} (shown at {place})")
    raise Usage(f"--fingerprint {fingerprint}: no key of {host.id} has it: {', '.join(seen) or 'none is known'}")
