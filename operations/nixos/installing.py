"""Installs NixOS below /mnt, boots it, and proves what runs."""

import base64
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pyinfra import host
from pyinfra.api import operation

from facts.machine import MachineState
from nixherd.deploy.run import operator
from nixherd.errors import FleetError
from nixherd.fleet import tree
from nixherd.fleet.changeset import changing
from nixherd.fleet.revisions import Note, is_revision, shown
from nixherd.install.permission import require_installable
from nixherd.install.requirements import configuration_path
from nixherd.locate.reach import Epoch
from nixherd.nix.commands import Evaluated
from nixherd.ssh.transient_unit import Job
from operations.fleet_files import alone
from operations.machine import (
    is_installed,
    machine_of,
    require_our_installer,
    require_still_installable,
    require_the_guest,
)
from operations.remote import copy_closure, run_job
from operations.steps import (
    Commands,
    build_selection,
    connector_of,
    decide,
    do,
    evaluated,
    executing,
    fleet_host,
    leave,
    session_of,
    shell,
)

INSTALL_DEADLINE = 3600  # seconds
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
NOTES = "/var/lib/nixherd/revisions"  # of `revisions.sh`
VERIFIED = "verified.json"
INSTALLED = "installed"  # the note of the system that was installed last
# A ZFS pool that was not exported is not imported at the next boot. What else stays busy the shutdown unmounts.
LEAVE = (
    "sync; swapoff -a; ! mountpoint -q /mnt || umount -R /mnt; ! command -v zpool >/dev/null || zpool export -a; "
    "setsid sh -c 'sleep 0.1; systemctl reboot' >/dev/null 2>&1 </dev/null &"
)


@operation()
def hardware_configuration(path: str | bool) -> Commands:
    """Write the hardware configuration that the installer generates into the flake's working tree.

    Args:
        path: the file, relative to the flake; True for `hardware-configuration.nix` beside the host's
            configuration. File systems are left to disko.
    """
    yield from decide(host, lambda: _hardware(path))


def _hardware(wanted: str | bool) -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    path, root = configuration_path(session, host_id, wanted), Path(session.fleet.path)
    inside = str(path.relative_to(root))
    machine = machine_of(host, "install")
    if is_installed(machine):
        host.noop(f"{host_id} is installed")
        return
    require_installable(session.fleet, host_id, "install")
    generated = None
    if machine and executing(host):
        require_our_installer(host, machine)
        generated = shell(
            host,
            "nixos-generate-config --show-hardware-config --no-filesystems --root /mnt",
            what="nixos-generate-config",
        )
        generated = generated.rstrip("\n") + "\n"
        if generated.encode() == tree.read(root, inside):
            host.noop(f"{path} is what the machine has")
            return

    def act() -> None:
        assert generated is not None, "generated before the first command"
        with alone(session), changing(root) as changeset:
            changeset.tree.replace(inside, generated.encode())
        session.forget("evaluate")  # they depend on it

    yield from do(host, f"write what hardware {host_id} has to {path}", act)


@operation()
def install(extra_files: Mapping[str, str] | None = None) -> Commands:
    """Copy the system of this host into the file systems at /mnt and install it there, host key included.

    Args:
        extra_files: further files for the new root, `{"/etc/x": "path/of/the/local/file"}`; mode and owner
            become 0600 and root.
    """
    yield from decide(host, lambda: _install(extra_files or {}))


def _install(extra_files: Mapping[str, str]) -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    about = evaluated(host)
    machine = machine_of(host, "install")
    job = _job(about)
    if is_installed(machine) or (machine and machine["jobs"].get("install") == job.well):
        host.noop(f"{host_id} is installed")
        return
    require_installable(session.fleet, host_id, "install")
    if machine and executing(host):
        require_our_installer(host, machine)
        if machine["mnt"] is None:
            raise FleetError(f"{host_id}: nothing is mounted at /mnt; run deploys/install.py from its start")
        require_the_guest(host)

    def act() -> None:
        build_selection(host)
        copy_closure(host, [about.toplevel], root="/mnt")
        key = session.key_to_install(host_id)
        _put(HOST_KEY, key.private_openssh.encode())
        _put(f"{HOST_KEY}.pub", f"{key.public}\n".encode(), mode="0644")
        _put(NOTES, f"{_note(about)}\n".encode(), mode="0644")
        for target, source in extra_files.items():
            _put(target, Path(source).read_bytes())
        require_still_installable(host, "install")
        # Before the job, which goes on when we are killed: afterwards nobody would note it.
        session.state_of(host_id).note(INSTALLED, about.toplevel)
        run_job(host, job)

    yield from do(host, f"install {about.toplevel} on {host_id}", act)


def _note(about: Evaluated) -> Note:
    """Of which revision it is, as the machine itself notes what it keeps later."""
    now = time.gmtime()
    revision = about.revision if about.revision and is_revision(about.revision) else None
    run = f"install-{time.strftime('%Y%m%dT%H%M%S', now)}"
    return Note(about.toplevel, revision, time.strftime("%Y-%m-%dT%H:%M:%SZ", now), operator(), run)


def _put(path: str, content: bytes, mode: str = "0600") -> None:
    """Write a file below /mnt; what it holds travels on stdin."""
    target, parent = (shlex.quote(f"/mnt{each}") for each in (path, PurePosixPath(path).parent))
    new = f"{target}.new"
    script = f"mkdir -p {parent} && umask 077 && base64 -d >{new} && chmod {mode} {new} && mv {new} {target}"
    shell(host, script, stdin=base64.b64encode(content).decode(), what=f"writing {path}")


def _job(about: Evaluated) -> Job:
    script = f"nixos-install --no-root-passwd --no-channel-copy --system {about.toplevel} --root /mnt\nsync"
    return Job("install", about.toplevel, script, INSTALL_DEADLINE)


@operation()
def reboot_installed() -> Commands:
    """Leave the installer for the system that was installed from it; its pinned host key must answer."""
    yield from decide(host, _reboot)


def _reboot() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    about = evaluated(host)
    machine = machine_of(host, "reboot")
    if is_installed(machine):
        host.noop(f"{host_id} runs its own system")
        return
    require_installable(session.fleet, host_id, "reboot")
    if machine and executing(host):
        require_our_installer(host, machine)
        if machine["jobs"].get("install") != _job(about).well:
            raise FleetError(f"{host_id} is not installed yet; run deploys/install.py from its start")
        require_the_guest(host)

    def act() -> None:
        connector = connector_of(host)
        require_still_installable(host, "reboot")
        leave(host, LEAVE)
        session.arrived.add(host_id)
        connector.drop()
        place = connector.reach(epochs=(Epoch.FINAL,), absent_ok=True)
        host.log(f"the installed system answers at {place.address}")

    yield from do(host, f"reboot {host_id} into its installed system", act)


@operation()
def verify() -> Commands:
    """Prove that the machine runs what the flake says: the path and the hostname, read back, and the revision noted."""
    yield from decide(host, _verify)


def _verify() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    about = evaluated(host)
    machine = machine_of(host)
    if not executing(host) and not is_installed(machine):
        yield from do(host, f"verify that {host_id} runs {about.toplevel}", lambda: None)
        return
    assert machine is not None, "a machine that does not answer is an error while executing"
    state = session.state_of(host_id)
    if executing(host):
        state.forget(VERIFIED)
    findings = disagreements(about, machine)
    if findings and host_id not in session.arrived and _has_moved_on(about, machine, state.noted(INSTALLED)):
        # Marking a VM readonly or writing its key into hosts.nix is a commit too. That the flake has moved on since
        # the installation is no fault of the machine; bringing it there is a deploy's business.
        host.log(f"{host_id} runs {_revisions(about, machine)}: deploy it")
    elif findings:
        raise FleetError(f"{host_id}: " + "; ".join(findings))
    elif about.revision not in (None, machine["revision"]):
        host.log(f"{host_id} notes {_revisions(about, machine)}, which is the same system: deploy it to note that")
    if executing(host):
        _report(about, machine)
    host.noop(f"{host_id} runs {machine['current_system']}")


def _has_moved_on(about: Evaluated, machine: MachineState, installed: str | None) -> bool:
    """Whether the machine is what was installed last, from another revision than the flake's present one."""
    as_installed = machine["current_system"] == installed or installed is None
    return (
        is_installed(machine)
        and as_installed
        and machine["revision"] != about.revision
        and (machine["hostname"] == about.hostname)
    )


def _revisions(about: Evaluated, machine: MachineState) -> str:
    return f"revision {shown(machine['revision'])}, the flake is at {shown(about.revision)}"


def disagreements(about: Evaluated, machine: MachineState) -> list[str]:
    """Where the machine is not what the flake says; empty when it is."""
    found: dict[str, tuple[str | None, str | None]] = {
        "system": (machine["current_system"], about.toplevel),
        "hostname": (machine["hostname"], about.hostname),
    }
    wrong = [f"{what} is {is_}, not {wanted}" for what, (is_, wanted) in found.items() if is_ != wanted]
    if wrong and is_installed(machine):
        wrong.append("it is installed, so it needs a deploy, not an installation")
    return wrong


def _report(about: Evaluated, machine: MachineState) -> None:
    """Say what was proven, and leave it as JSON beside the host's state for CI."""
    session, place = session_of(host), connector_of(host).reach()
    vm = session.vm(about.host_id)
    runs = f"{machine['current_system']} (revision {shown(machine['revision'])}) from {machine['root']}"
    host.log(f"{about.host_id} at {place.address} runs {runs}")
    summary = {
        "host": about.host_id,
        "vmid": vm.vmid if vm else None,
        "address": place.address,
        "system": machine["current_system"],
        "booted": machine["booted_system"],
        "hostname": machine["hostname"],
        "revision": machine["revision"],
        "flake_revision": about.revision,
        "root": machine["root"],
        "host_key": place.host_key,
    }
    session.state_of(about.host_id).note(VERIFIED, json.dumps(summary, indent=2) + "\n")
    if session.journal is not None:
        session.journal.note("found", about.host_id, verified=summary)
