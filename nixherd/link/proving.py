"""The proof that a machine is the one that is meant: a guest by its agent, the one that we run on by its key."""

import os
import secrets
import shlex
from dataclasses import replace
from pathlib import Path

from nixherd.base.becoming_root import Become
from nixherd.base.errors import AgentUnavailable, FleetError, Refused
from nixherd.base.files import BOOT_ID
from nixherd.base.ssh_keys import HOST_KEY_FILE, parse_public_key
from nixherd.fleet.models import Host
from nixherd.link.client import PinnedClient
from nixherd.locate import proof
from nixherd.locate.proof import Asked, Shown
from nixherd.locate.reach import Epoch, Place, epoch_on
from nixherd.proxmox.hypervisor import Hypervisor

ANSWER_TIMEOUT = 20.0  # seconds for the machine to answer, and for the agent to write a word
MOST = 1 << 20  # bytes of an answer that are read
LOOKS = 3  # how often a machine is looked at whose boot is not the one that its guest's agent tells


def proven(hypervisor: Hypervisor, ssh: PinnedClient, host: Host, place: Place) -> Place:
    """The place as the machine there says that it is. OSError when it does not answer, or its guest's agent.

    Refused when it is not the guest that named the place.
    """
    guest, token, problem = place.identity, secrets.token_hex(8), None
    for _ in range(LOOKS):  # a guest that boots between two answers has lost the connection: OSError at the next look
        shown = _shown(output_of(ssh, proof.look(token)), token)
        if guest is None:
            break
        problem = proof.disproof(guest, shown)
        if problem or not guest.has_agent or (told := _told_boot(hypervisor, guest)) == shown.boot_id:
            break
        problem = f"its boot_id is {shown.boot_id}, and the agent tells {told or 'none'}"
    if guest and problem:
        raise Refused(_is_another(guest, place.address, problem))
    # nobody but the machine itself can say whether it has jumped into the installer already
    epoch = epoch_on(host, shown.os_release)
    if guest and (epoch is Epoch.FINAL) != (place.epoch is Epoch.FINAL):
        expected = "installed system" if place.epoch is Epoch.FINAL else place.epoch
        raise Refused(
            f"{guest.label}: with the key of its {expected}, the {epoch} answers at {place.address}; nothing was "
            "done there: find out who is root in that guest"
        )
    return replace(place, epoch=epoch)


def _shown(output: str, token: str) -> Shown:
    """What the machine says of itself. OSError when it does not."""
    if shown := proof.parse(output, token):
        return shown
    raise OSError("it did not say which machine it is: its login shell runs no `sh -c`, or /proc is not readable")


def _is_another(guest: Asked, address: str, problem: str) -> str:
    return (
        f"the machine at {address} is not {guest.label}, which is said to have that address: {problem}; nothing was "
        f"done there: find out who is root in {guest.label}, and whether another machine has its address or its key"
    )


def _told_boot(hypervisor: Hypervisor, guest: Asked) -> str:
    """The boot_id that the guest's agent tells. OSError when it does not answer."""
    try:
        return hypervisor.client.agent_read(guest.node, guest.vmid, BOOT_ID).strip()
    except AgentUnavailable as error:
        raise OSError(str(error)) from error


def prove_by_word(hypervisor: Hypervisor, ssh: PinnedClient, guest: Asked, address: str, become: Become) -> None:
    """Have root of the guest write down a word, by its agent, and read it as root of the machine. Refused otherwise.

    Whoever only looks like the guest, to the last bit, does not have it.
    """
    name, word = secrets.token_hex(8), secrets.token_hex(32)
    argv = ["/bin/sh", "-c", proof.PLANT]
    done = hypervisor.client.agent_exec(guest.node, guest.vmid, argv, input=f"{name} {word}\n", timeout=ANSWER_TIMEOUT)
    if done.exitcode != 0:
        words = (done.stderr or done.stdout).strip() or f"status {done.exitcode}"
        raise FleetError(f"{guest.label}: its agent could not write {proof.planted(name)}: {words}")
    transport = ssh.get_transport()
    root = "" if transport is not None and transport.get_username() == "root" else f"{become.without_question} "
    file = shlex.quote(proof.planted(name))
    found = output_of(ssh, f"{root}cat {file}").split()
    if word not in found:
        raise Refused(_is_another(guest, address, "it does not have what the agent wrote down for its root"))
    output_of(ssh, f"{root}rm -f {file}")


def output_of(ssh: PinnedClient, script: str, most: int = MOST) -> str:
    """The standard output of a script. OSError without an answer in time, or with one that is too long."""
    return ssh.ask(script, ANSWER_TIMEOUT, most).stdout


def require_is_this(host: Host, pinned: str | None, file: str) -> None:
    """Refused unless this machine is called as that host is, and its SSH host key, where both have one, is the pinned
    one: another machine's system is not for it. `file` is where the fleet says both."""
    name = os.uname().nodename.partition(".")[0]
    if name != host.hostname.partition(".")[0]:
        raise Refused(
            f"local: this machine is called {name}, and {host.id} in {file} {host.hostname}; name the host that it "
            "is, or go there by SSH, without local"
        )
    key = _own_key()
    if pinned and key and parse_public_key(pinned).blob != key:
        raise Refused(
            f"local: this machine is called {name}, but its {HOST_KEY_FILE} is not the publicKey of {host.id} in "
            f"{file}; correct the wrong one of them"
        )


def _own_key() -> str | None:
    try:
        return parse_public_key(Path(HOST_KEY_FILE).read_text().strip()).blob
    except (OSError, ValueError):
        return None
