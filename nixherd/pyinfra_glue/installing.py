"""Installing NixOS on a machine: the installer it is taken into, what is asked before it is wiped, how it is filled."""

import base64
import json
import shlex
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pyinfra.api.host import Host

from nixherd.base.errors import FleetError, Refused
from nixherd.base.process import Completed
from nixherd.base.reasons import reason
from nixherd.base.ssh_keys import HOST_KEY, HOST_KEY_FILE
from nixherd.deploy.copy import copy_closure, copy_towards
from nixherd.deploy.installation import Given, obstacles
from nixherd.deploy.machine import ANSWER_DEADLINE, Machine, output_of, restart, run_job
from nixherd.deploy.operators import operator
from nixherd.deploy.running import MachineState, machine_script, parse_machine
from nixherd.fleet.changeset import changing
from nixherd.fleet.groups import PHASES, phases_of
from nixherd.fleet.load import load_fleet
from nixherd.fleet.revisions import Note, is_revision, shown
from nixherd.locate.reach import Epoch, Place
from nixherd.nix.commands import Evaluated
from nixherd.nix.image import Image
from nixherd.proxmox.permission import mark, require_installable, require_no_declared_guest
from nixherd.pyinfra_glue.connector import Unasked
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.hosts import build_selection, connector_of, context_of, evaluated, executing, fleet_host
from nixherd.ssh.login_shell import JOBS, Job

WIPE = "wipe the disks of"
DISKO_DEADLINE = 900  # seconds
INSTALL_DEADLINE = 3600  # seconds
NOTES = "/var/lib/nixherd/revisions"  # of `revisions.sh`
VERIFIED = "verified.json"
INSTALLED = "installed"  # the note of the system that was installed last
# A ZFS pool that was not exported is not imported at the next boot. What else stays busy the shutdown unmounts.
LEAVE = (
    "sync; swapoff -a; ! mountpoint -q /mnt || umount -R /mnt; ! command -v zpool >/dev/null || zpool export -a; "
    "setsid sh -c 'sleep 0.1; systemctl reboot' >/dev/null 2>&1 </dev/null &"
)


def machine_of(host: Host, verb: str | None = None) -> MachineState | None:
    """What the machine says of itself; None only while planning for one that is not there. FleetError otherwise.

    `verb` is what an installation is about to do to it: in such a run a clone and an installer are looked at as well.
    One that does not answer is not waited for where the definitions do not let us `verb` it: that is Refused at once.
    """
    connector = connector_of(host)
    connector.installs = connector.installs or verb is not None
    if executing(host):
        if verb and not connector.connected:
            require_installable(context_of(host).fleet, fleet_host(host).id, verb)
        connector.reach()  # here its reason is one line of this host; in a fact, pyinfra shows a traceback
    try:
        return state_in(host, _look_at(host))
    except Unasked:
        return None


def _look_at(host: Host) -> Completed:
    """Ask the machine what runs on it."""
    machine = machine_for(host)
    return machine.look(lambda: machine.run(machine_script(), deadline=ANSWER_DEADLINE))


def state_in(host: Host, done: Completed) -> MachineState:
    """What the machine said of itself. FleetError when it did not."""
    if done.status == 0 and done.stdout:
        return parse_machine(done.stdout.splitlines())
    why = f" ({reason(done.stderr)})" if done.stderr.strip() else ""
    raise FleetError(f"{fleet_host(host).id}: the machine did not say what runs on it{why}; run this again")


def machine_for(host: Host) -> PyinfraMachine:
    """The machine in whichever system this run has business with: the clone, the installer or the installed one."""
    return PyinfraMachine(host, epochs=())


def is_installed(machine: MachineState | None) -> bool:
    """Whether an installed NixOS answers; whatever it calls itself, it has a current system and is not an installer."""
    return machine is not None and machine["current_system"] is not None and machine["variant"] != "installer"


def require_our_installer(host: Host, machine: MachineState | None) -> MachineState:
    """Return the machine. Refused unless this is the installer that this fleet booted for this very host."""
    host_id = fleet_host(host).id
    if machine is None or machine["variant"] != "installer" or machine["mark"] != mark(context_of(host).fleet, host_id):
        raise Refused(
            f"{host_id} is not in an installer that this fleet booted for it; refusing to touch its disk; "
            "run `nixherd install` from its start"
        )
    return machine


def require_new_root(host: Host, machine: MachineState | None) -> None:
    """Refused unless this is our installer, FleetError unless the new root is mounted in it."""
    if require_our_installer(host, machine)["mnt"] is None:
        raise FleetError(f"{fleet_host(host).id}: nothing is mounted at /mnt; run `nixherd install` from its start")


ENDS = {
    "kexec": "in its installer, its disks as they were",
    "disko": "in its installer, its disks formatted and mounted, not installed",
    "install": "installed, not rebooted",
}
"""by phase, how far a machine is that has come to its end and no further"""


def require_reached(host: Host, config: Evaluated, machine: MachineState, phase: str) -> None:
    """FleetError unless a machine in its installer has come to the end of this phase."""
    require_our_installer(host, machine)
    jobs = machine["jobs"]
    is_formatted = machine["mnt"] is not None and jobs.get("disko") == f"{config.disko_script} 0"
    has = {"kexec": True, "disko": is_formatted, "install": jobs.get("install") == install_job(config).well}
    if not has[phase]:
        raise FleetError(f"{config.host_id} is not {ENDS[phase]}, as the machine says; run this again")


def require_still_installable(host: Host, verb: str) -> None:
    """Refused unless the definitions, as they are at this moment, let us do this to the machine that answers.

    A guest proves once more, on this connection, that it is the one: by what its root alone can have.
    """
    host_id, fleet = fleet_host(host).id, load_fleet(context_of(host).fleet.path)
    now = fleet.hosts.get(host_id)
    if now and now.unread:  # what its configuration says is as it was at the beginning
        public_key = now.public_key or fleet_host(host).public_key
        known = replace(fleet_host(host), public_key=public_key)
        fleet = replace(fleet, hosts={**fleet.hosts, host_id: known})
    require_installable(fleet, host_id, verb)
    connector_of(host).reach()
    machine = state_in(host, _look_at(host))
    if fleet.vm_of(host_id) is None and fleet.vms:
        require_no_declared_guest(fleet, context_of(host).hypervisor.client, machine["macs"], host_id, verb)
    connector_of(host).prove_for_wiping()


def is_due(host: Host, before: str) -> bool:
    """Whether the end of the phase `before` has to be there by now: also in a plan, where this run leaves it out."""
    return executing(host) or before not in (phases_of(host.data.get("phases")) or PHASES)


def is_new_root_due(host: Host, machine: MachineState | None) -> bool:
    """Whether the new root has to be there by now; then it is, in our installer, on a machine that has proved itself.

    Refused where nothing may be put there, FleetError where nothing is mounted.
    """
    require_installable(context_of(host).fleet, fleet_host(host).id, "install")
    if not is_due(host, "disko"):
        return False
    require_new_root(host, machine)
    if executing(host):
        connector_of(host).prove_for_wiping()
    return True


def disko_job(script: str, keys: Iterable[str] = ()) -> Job:
    """Wipe, format and mount. What an earlier run left mounted is unmounted first; if that fails nothing is wiped.

    The key files are removed at its end, also when nobody waits for it any more.
    """
    files = " ".join(map(shlex.quote, keys))
    ends = f"trap {shlex.quote(f'rm -f -- {files}')} EXIT\ntrap 'exit 143' TERM\n" if files else ""
    text = f"{ends}if mountpoint -q /mnt; then umount -R /mnt; fi\n{script}\nmountpoint -q /mnt"
    return Job("disko", script, text, DISKO_DEADLINE)


def write_hardware(host: Host, path: str, generated: str) -> None:
    """Write a hardware configuration into the flake, which is evaluated anew then."""
    if not generated:
        raise FleetError(f"{fleet_host(host).id}: its hardware configuration was not generated; run this again")
    with context_of(host).run.fleet_files, changing(Path(context_of(host).fleet.path)) as changeset:
        changeset.tree.replace(path, generated.encode())
    context_of(host).evaluator.forget()


def install_job(config: Evaluated) -> Job:
    script = f"nixos-install --no-root-passwd --no-channel-copy --system {config.toplevel} --root /mnt\nsync"
    return Job("install", config.toplevel, script, INSTALL_DEADLINE)


def install_system(host: Host, config: Evaluated, job: Job) -> None:
    """Copy the system below /mnt, with its host key and the note of its revision, and install it."""
    machine = machine_for(host)
    build_selection(host)
    copy_closure(machine, [config.toplevel], "/mnt", is_nixos=True)
    key = context_of(host).keys.to_install(config.host_id)
    context_of(host).run.touched.add(config.host_id)  # what follows is several commands: the last may not be begun
    _put(machine, HOST_KEY, key.private_openssh.encode())
    _put(machine, HOST_KEY_FILE, f"{key.public}\n".encode(), mode="0644")
    _put(machine, NOTES, f"{_revision_note(config)}\n".encode(), mode="0644")
    require_still_installable(host, "install")
    # Before the job, which goes on when we are killed: afterwards nobody would note it.
    context_of(host).run.state_of(config.host_id).note(INSTALLED, config.toplevel)
    run_job(machine, job)


def _revision_note(config: Evaluated) -> Note:
    """Of which revision it is, as the machine itself notes what it keeps later."""
    now = time.gmtime()
    revision = config.revision if config.revision and is_revision(config.revision) else None
    run = f"install-{time.strftime('%Y%m%dT%H%M%S', now)}"
    return Note(config.toplevel, revision, time.strftime("%Y-%m-%dT%H:%M:%SZ", now), operator(), run)


def _put(machine: Machine, path: str, content: bytes, mode: str = "0600") -> None:
    """Write a file below /mnt; what it holds travels on stdin."""
    target, parent = (shlex.quote(f"/mnt{each}") for each in (path, PurePosixPath(path).parent))
    new = f"{target}.new"
    script = f"mkdir -p {parent} && umask 077 && base64 -d >{new} && chmod {mode} {new} && mv {new} {target}"
    output_of(machine, script, stdin=base64.b64encode(content).decode(), what=f"writing {path}")


def leave_installer(host: Host) -> None:
    """Reboot into the installed system, and wait for it."""
    connector = connector_of(host)
    require_still_installable(host, "reboot")
    restart(machine_for(host), LEAVE)
    context_of(host).run.arrived.add(fleet_host(host).id)
    connector.drop()
    place = connector.reach(epochs=(Epoch.FINAL,), absent_ok=True)
    host.log(f"the installed system answers at {place.address}")


def require_as_declared(host: Host, config: Evaluated, machine: MachineState) -> None:
    """FleetError where the machine is not what the flake says, unless the flake has moved on since its installation."""
    host_id = config.host_id
    findings = disagreements(config, machine)
    installed = context_of(host).run.state_of(host_id).noted(INSTALLED)
    revisions = f"revision {shown(machine['revision'])}, the flake is at {shown(config.revision)}"
    if findings and host_id not in context_of(host).run.arrived and _has_moved_on(config, machine, installed):
        # Marking a VM readonly or writing its key into hosts.nix is a commit too. That the flake has moved on since
        # the installation is not a fault of the machine; bringing it there is a deploy's business.
        host.log(f"{host_id} runs {revisions}: deploy it")
    elif findings:
        raise FleetError(f"{host_id}: " + "; ".join(findings))
    elif config.revision not in (None, machine["revision"]):
        host.log(f"{host_id} notes {revisions}, which is the same system: deploy it to note that")


def _has_moved_on(config: Evaluated, machine: MachineState, installed: str | None) -> bool:
    """Whether the machine is what was installed last, from another revision than the flake's present one."""
    as_installed = is_installed(machine) and installed in (machine["current_system"], None)
    return as_installed and machine["revision"] != config.revision and machine["hostname"] == config.hostname


def disagreements(config: Evaluated, machine: MachineState) -> list[str]:
    """Where the machine is not what the flake says; empty when it is."""
    compared: dict[str, tuple[str | None, str | None]] = {
        "system": (machine["current_system"], config.toplevel),
        "hostname": (machine["hostname"], config.hostname),
    }
    wrong = [f"{what} is {has}, not {declared}" for what, (has, declared) in compared.items() if has != declared]
    if wrong and is_installed(machine):
        wrong.append("it is installed, so it needs a deploy, not an installation")
    return wrong


def report(host: Host, config: Evaluated, machine: MachineState, place: Place) -> None:
    """Say what the machine was read to run, and leave it as JSON beside the host's state for CI."""
    vm = context_of(host).fleet.vm_of(config.host_id)
    runs = f"{machine['current_system']} (revision {shown(machine['revision'])}) from {machine['root']}"
    host.log(f"{config.host_id} at {place.address} runs {runs}")
    summary = {
        "host": config.host_id,
        "vmid": vm.vmid if vm else None,
        "address": place.address,
        "system": machine["current_system"],
        "booted": machine["booted_system"],
        "hostname": machine["hostname"],
        "revision": machine["revision"],
        "flake_revision": config.revision,
        "root": machine["root"],
        "host_key": place.host_key,
    }
    context_of(host).run.state_of(config.host_id).note(VERIFIED, json.dumps(summary, indent=2) + "\n")
    context_of(host).run.journal.note("found", config.host_id, verified=summary)


UPLOAD_DEADLINE = 1800.0  # seconds
NEEDED = ("tar", "gzip", "cpio", "setsid")  # by the tarball's script
BOOT = "boot the installer on"


def findings(host: Host) -> list[str]:
    """What of this side would stop the installation of this host half-way."""
    return list(obstacles(context_of(host).keys, context_of(host).builder, evaluated(host), given_for(host)))


def given_for(host: Host) -> Given:
    return Given.of(host.data.get)


def image_for(host: Host) -> Image:
    """Which installer takes this host over."""
    return given_for(host).image(fleet_host(host).id, evaluated(host).system)


def boot_installer(host: Host) -> None:
    """Upload the flake's installer and jump into it. FleetError when the machine cannot take it."""
    host_id, connector, machine = fleet_host(host).id, connector_of(host), machine_for(host)
    tarball = context_of(host).builder.kexec_tarball(image_for(host))
    by_root = "" if connector.destination().user == "root" else f"{connector.become.without_question} "
    require_still_installable(host, BOOT)
    output_of(machine, f"{by_root}true", what=f"becoming root (`{by_root}true`)")
    missing = output_of(machine, f"for p in {' '.join(NEEDED)}; do command -v $p >/dev/null || echo $p; done").split()
    if missing:
        raise FleetError(f"{host_id} lacks {', '.join(missing)}, which the installer needs; install it in the template")
    host.log(f"copying {tarball.name} ({tarball.stat().st_size >> 20} MiB)")
    # Into a place of its own: what another run left, or still sends, is not what is run.
    unpack = f"d=$({by_root}mktemp -d /root/kexec.XXXXXX) && {by_root}tar -C $d -xzf - && echo $d"
    send = ["sh", "-c", 'exec "$@" < "$0"', str(tarball)]
    place = copy_towards(machine, lambda to: ([*send, *to.argv(unpack)], {}), UPLOAD_DEADLINE).stdout.strip()
    context_of(host).run.state_of(host_id).note("kexec", jump_note(host))
    output_of(machine, f"{by_root}setsid --wait {shlex.quote(place)}/kexec/run", what="the kexec installer")
    connector.drop()
    address = connector.reach(epochs=(Epoch.INSTALLER,), absent_ok=True).address
    host.log(f"the installer answers at {address}")
    mark_installer(host)


def jump_note(host: Host) -> str:
    """What is noted before the jump. If we are killed between it and the mark, this tells our installer from others:
    it keeps the host key of the machine that we jumped from."""
    return f"{mark(context_of(host).fleet, fleet_host(host).id)}\n{connector_of(host).reach().host_key}\n"


def mark_installer(host: Host) -> None:
    host_id = fleet_host(host).id
    connector_of(host).prove_for_wiping()
    output_of(
        machine_for(host),
        f"mkdir -p -m 0700 {JOBS} && cat >{JOBS}/mark.new && mv {JOBS}/mark.new {JOBS}/mark",
        stdin=mark(context_of(host).fleet, host_id),
        what="marking the installer",
    )
    context_of(host).run.state_of(host_id).forget("kexec")
