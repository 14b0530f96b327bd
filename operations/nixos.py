"""Operations on machines that run NixOS, or are to.

Installing (`hardware_…`, `extra_files`, `install`, `reboot_installed`, `reached`, `verify`) is for deploys/install.py.
The others work on a machine that is installed, and can be called by hand:

    pyinfra -y inventory.py --limit dev operations.nixos.rollback
    pyinfra -y inventory.py --limit nixos operations.nixos.gc older_than=30d
"""

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pyinfra import host

from nixherd.base.errors import EndUnknown, FleetError, NotWell, Usage
from nixherd.base.names import many
from nixherd.base.reasons import reason
from nixherd.deploy import build as building
from nixherd.deploy import carried
from nixherd.deploy.health import unwell
from nixherd.deploy.installation import FACTER, GENERATED, REPORTED, configuration_path, hardware_of
from nixherd.deploy.machine import run_job
from nixherd.deploy.options import HERE, Goal
from nixherd.deploy.plan import checks_of
from nixherd.deploy.rollout import Planned, Target
from nixherd.deploy.running import PROFILE, Generation, chosen, days_of, expired, has_it, require_store_path
from nixherd.facts.nixos import Generations
from nixherd.fleet import tree
from nixherd.proxmox.permission import require_installable
from nixherd.pyinfra_glue import carrying, installing
from nixherd.pyinfra_glue.engine import PyinfraMachine, begin_reached, builder_for, copy_to, switch_to
from nixherd.pyinfra_glue.hosts import connector_of, context_of, evaluated, executing, fleet_host
from nixherd.pyinfra_glue.installing import is_installed, machine_for, machine_of
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.ssh.login_shell import Job

GC_DEADLINE = 3600  # seconds


@operation()
def copied(system: str) -> Change:
    """Copy the closure of a store path to the machine; only what is missing there.

    Args:
        system: a store path of this machine's store.
    """
    return copy_to(host, [require_store_path("system", system)])


@operation()
def activated(system: str, goal: str = "switch", generation: int | None = None) -> Change | NoChange:
    """Activate a system that the machine has, under its own guard; prove it and keep it, or have the machine go back.

    Args:
        system: its store path.
        goal: switch, test or boot.
        generation: its number in the profile, where it is to be that generation again.
    """
    target = Target(require_store_path("system", system), generation=generation)
    if goal not in (Goal.SWITCH, Goal.TEST, Goal.BOOT):
        raise Usage(f"goal={goal} is not one of switch, test, boot")
    return switch_to(host, target, *begin_reached(host, goal=goal))


@operation()
def profile(system: str) -> Change | NoChange:
    """Make a system that the machine has the one that boots next; what runs stays.

    Args:
        system: its store path.
    """
    return switch_to(host, Target(require_store_path("system", system)), *begin_reached(host, goal=Goal.BOOT))


@operation()
def rollback(generation: int | None = None) -> Change | NoChange:
    """Go back to a generation of the system profile, under the machine's own guard.

    Args:
        generation: its number; by default the one before the current.
    """
    begun = begin_reached(host, goal=Goal.SWITCH)
    entry = chosen(host.get_fact(Generations), generation)
    return switch_to(host, Target(entry["path"], generation=entry["number"]), *begun)


@operation()
def gc(older_than: str = "30d") -> Change:
    """Delete generations, and what nothing needs then; the boot entries follow. The current one stays.

    Args:
        older_than: days, as in 30d.
    """
    try:
        days = days_of(str(older_than))
    except ValueError as error:
        raise Usage(str(error)) from None
    generations: list[Generation] = host.get_fact(Generations)
    gone = expired(generations, days, datetime.now(UTC))
    script = f"nix-collect-garbage --delete-older-than {older_than}; {PROFILE}/bin/switch-to-configuration boot"
    job = Job("gc", time.strftime("%Y%m%dT%H%M%S"), script, GC_DEADLINE)
    numbers = [each["number"] for each in gone]
    what = f"{many(len(gone), 'generation')} older than {older_than}{f' ({_listed(numbers)})' if gone else ''}"
    return Change(f"delete {what}, and garbage", partial(_collect, PyinfraMachine(host), job, numbers))


def _collect(machine: PyinfraMachine, job: Job, numbers: Collection[int]) -> None:
    """Run the job, and look whether these generations are gone. FleetError where one is not."""
    run_job(machine, job, sudo=True)
    fact = Generations()
    done = machine.run(fact.command())
    if done.status != 0:
        raise EndUnknown(f"{machine.id}: what is left is not known: {reason(done.stderr or done.stdout)}")
    if left := [each["number"] for each in fact.process(done.stdout.splitlines()) if each["number"] in numbers]:
        raise FleetError(f"{machine.id}: generation {_listed(left)} is still there, though Nix ended well")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


@operation()
def rebuild(action: str = "switch", build_on: str = HERE, specialisation: str | None = None) -> Change | NoChange:
    """Run `nixos-rebuild ACTION --flake FLEET#HOST --target-host …`, and read back what runs then.

    Args:
        action: switch, boot, test or dry-activate.
        build_on: local, target or a host of the fleet.
        specialisation: the one to switch to.
    """
    evaluator = context_of(host).evaluator
    rollout, host_run, reached = begin_reached(host, build_on=build_on)
    config, running = evaluator.evaluate((host_run.id,), host_run.id), reached.running
    checks = checks_of(host_run, config, specialisation)
    if action == "switch" and specialisation is None and has_it(running, config.toplevel, Goal.SWITCH):
        problem, _ = unwell(host_run.machine, host_run.kind, running, checks, config.toplevel)
        if problem:
            raise NotWell(f"{host_run.id} runs {running.current} already; {problem}; nothing was activated")
        return NoChange(f"{host_run.id} runs {running.current} already")
    request = building.Rebuild(action, builder_for(host, host_run), specialisation)
    make = partial(building.rebuild, evaluator, rollout, host_run, Planned(reached, config, checks), request)
    return Change(f"nixos-rebuild {action} of {host_run.id}", make)


@operation()
def hardware_configuration(path: str | bool) -> Change | NoChange:
    """Write the hardware configuration that the installer generates into the flake's working tree.

    Args:
        path: the file, relative to the flake; True for `hardware-configuration.nix` beside the host's
            configuration. File systems are left to disko.
    """
    return _hardware(path, GENERATED, "nixos-generate-config", "--show-hardware-config --no-filesystems --root /mnt")


@operation()
def hardware_report(path: str | bool) -> Change | NoChange:
    """Write what nixos-facter reports in the installer into the flake's working tree, for `hardware.facter.reportPath`.

    Args:
        path: the file, relative to the flake; True for `facter.json` beside the host's configuration.
    """
    return _hardware(path, REPORTED, FACTER)


def _hardware(path: str | bool, name: str, program: str, options: str = "") -> Change | NoChange:
    fleet, host_id = context_of(host).fleet, fleet_host(host).id
    file, root = configuration_path(fleet, host_id, path, name), Path(fleet.path)
    inside = str(file.relative_to(root))
    machine = machine_of(host, "install")
    if is_installed(machine):
        return NoChange(f"{host_id} is installed")
    require_installable(context_of(host).fleet, host_id, "install")
    content = ""
    if installing.is_due(host, "kexec"):
        installing.require_our_installer(host, machine)
        content = hardware_of(machine_for(host), program, options)
        if content.encode() == tree.read(root, inside):
            return NoChange(f"{file} is what the machine has")
    write = partial(installing.write_hardware, host, inside, content)
    return Change(f"write what hardware {host_id} has to {file}", write)


@operation()
def extra_files(files: str | Mapping[str, str], owners: Mapping[str, str] | None = None) -> Change | NoChange:
    """Put further files into the new root, with their modes, and read them back.

    Args:
        files: a directory, whose tree is carried with its modes; or `{"/etc/x": "path/of/the/local/file"}`, which
            become 0600.
        owners: `UID:GID` by path in the new root, for all below it; root's without.
    """
    host_id = fleet_host(host).id
    entries = carried.read(host_id, files, owners)
    machine = machine_of(host, "install")
    if is_installed(machine):
        return NoChange(f"{host_id} is installed")
    if installing.is_new_root_due(host, machine) and not carrying.lacking(host, entries):
        return NoChange(f"the new root of {host_id} has its further files")
    number = sum(each.kind != carried.DIRECTORY for each in entries)
    return Change(f"put {number} further files into the new root of {host_id}", partial(carrying.carry, host, entries))


@operation()
def install() -> Change | NoChange:
    """Copy the system of this host into the file systems at /mnt and install it there, host key included."""
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = machine_of(host, "install")
    job = installing.install_job(config)
    if is_installed(machine) or (machine and machine["jobs"].get("install") == job.well):
        return NoChange(f"{host_id} is installed")
    installing.is_new_root_due(host, machine)
    make = partial(installing.install_system, host, config, job)
    return Change(f"install {config.toplevel} on {host_id}", make)


@operation()
def reboot_installed() -> Change | NoChange:
    """Leave the installer for the system that was installed from it; its pinned host key must answer."""
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = machine_of(host, "reboot")
    if machine and is_installed(machine):
        return NoChange(f"{host_id} runs its own system, {machine['current_system']}")
    require_installable(context_of(host).fleet, host_id, "reboot")
    if installing.is_due(host, "install"):
        if (
            installing.require_our_installer(host, machine)["jobs"].get("install")
            != installing.install_job(config).well
        ):
            raise FleetError(f"{host_id} is not installed yet; run `nixherd install` from its start")
        if executing(host):
            connector_of(host).prove_for_wiping()
    return Change(f"reboot {host_id} into its installed system", partial(installing.leave_installer, host))


@operation()
def verify() -> Change | NoChange:
    """Prove that the machine runs what the flake says: the path and the hostname, read back, and the revision noted."""
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = machine_of(host)
    if machine is None or (not executing(host) and not is_installed(machine)):
        return Change(f"verify that {host_id} runs {config.toplevel}", lambda: None)
    state = context_of(host).run.state_of(host_id)
    if executing(host):
        state.forget(installing.VERIFIED)
    installing.require_as_declared(host, config, machine)
    if executing(host):
        installing.report(host, config, machine, connector_of(host).reach())
    return NoChange(f"{host_id} runs {machine['current_system']}")


@operation()
def reached(phase: str) -> Change | NoChange:
    """Prove how far an installation has come that ends before its reboot, by what the machine says.

    Args:
        phase: kexec, disko or install.
    """
    host_id = fleet_host(host).id
    config = evaluated(host)
    machine = machine_of(host, "install")
    if machine and is_installed(machine):
        if executing(host):
            context_of(host).run.journal.note("found", host_id, reached="installed")
        return NoChange(f"{host_id} is installed, and runs {machine['current_system']}")
    summary = installing.ENDS[phase]
    if machine is None or not executing(host):
        return Change(f"verify that {host_id} is {summary}", lambda: None, changes=False)
    installing.require_reached(host, config, machine, phase)
    context_of(host).run.journal.note("found", host_id, reached=summary)
    return NoChange(f"{host_id} is {summary}")
