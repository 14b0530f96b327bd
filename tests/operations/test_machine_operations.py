"""What is done on a machine: planned, changed, unchanged, refused, on an sshd whose root says what it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Exit, FleetError
from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.deploy.machine import restart, run_job
from nixherd.fleet.revisions import Note
from nixherd.link import proving
from nixherd.operations import disko, installer, nixos
from nixherd.proxmox.permission import mark
from nixherd.pyinfra_glue.hosts import connector_of
from nixherd.pyinfra_glue.installing import machine_for
from nixherd.ssh.login_shell import JOBS, Job
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import (
    DESCRIBED,
    SCRIPT,
    SYSTEM,
    Outcome,
    Perform,
    Said,
    connected,
    evaluates_to,
    executing,
    perform,
    vm,
)
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

DEBIAN, INSTALLER, NIXOS = "ID=debian", "ID=nixos\nVARIANT_ID=installer", "ID=nixos"
MOUNTED = "mount -t tmpfs new-root /mnt"
OPERATIONS = [installer.boot, disko.format_disks, nixos.install, nixos.reboot_installed]
Machine = Callable[..., Perform]


def job(name: str, said: str) -> str:
    return f"mkdir -p {JOBS}; printf %s '{said}' > {JOBS}/{name}.done"


def ours(shared: Shared) -> str:
    return f"mkdir -p {JOBS}; printf %s '{mark(shared.fleet, 'dev')}' > {JOBS}/mark"


def runs(system: str = SYSTEM, revision: str | None = DESCRIBED.revision) -> str:
    """An installed NixOS, as far as it says so."""
    line = Note(system, revision, "2026-11-29T21:03:27Z", "me@laptop-1", "install-20261129T210300")
    return (
        f"mkdir -p /var/lib/nixherd; echo '{line}' > /var/lib/nixherd/revisions\n"
        f"mkdir -p {system}; ln -s {system} /run/current-system; ln -s {system} /run/booted-system"
    )


@pytest.fixture
def machine(emulator: Emulator, sshd: Sshd, shared: Shared, said: Said) -> Machine:
    """Starts `dev` with this system and set-up, and returns how to perform operations on it."""

    def start(system: str, *setup: str) -> Perform:
        pair: KeyPair = shared.keys.ensure("dev") if system == NIXOS else generate_ed25519("clone")
        vm(emulator, "127.0.0.1", key=pair.public, system=system)
        sshd.start(pair, system=system, setup="\n".join(setup) or ":")

        def one(operation: Any, *, plan: bool = False, **arguments: Any) -> Outcome:
            host = connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10)
            return perform(host, said, operation, plan=plan, **arguments)

        return one

    return start


@pytest.mark.parametrize("operation", [*OPERATIONS, nixos.verify])
def test_an_installed_machine_is_left_alone(machine: Machine, emulator: Emulator, operation: Any) -> None:
    run = machine(NIXOS, runs())
    assert not run(operation, plan=True).changed
    outcome = run(operation)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said
    assert emulator.changes() == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_somebody_elses_installer_is_refused(machine: Machine, operation: Any) -> None:
    outcome = machine(INSTALLER, MOUNTED, job("disko", "another 0"))(operation)
    assert (outcome.changed, outcome.failed) == (False, True)
    assert "in an installer that this fleet" in outcome.said[-1]


@pytest.mark.parametrize("operation", OPERATIONS[1:])
def test_only_an_installer_is_worked_in(machine: Machine, operation: Any) -> None:
    outcome = machine(DEBIAN)(operation)
    assert outcome.failed
    assert outcome.said[-1] == (
        "dev is not in an installer that this fleet booted for it; refusing to touch its disk; "
        "run `nixherd install` from its start"
    )


@pytest.mark.parametrize(
    ("operation", "verb"),
    list(zip(OPERATIONS, ("boot the installer on", "wipe the disks of", "install", "reboot"), strict=True)),
)
def test_a_readonly_vm_is_refused(machine: Machine, shared: Shared, operation: Any, verb: str) -> None:
    shared.fleet = replace(shared.fleet, vms={"dev": replace(shared.fleet.vms["dev"], readonly=True)})
    outcome = machine(INSTALLER if operation is not installer.boot else DEBIAN, ours(shared), MOUNTED)(operation)
    assert outcome.failed
    assert outcome.said[-1].startswith(f"vm 110 (dev) is readonly in vms/definitions.nix; refusing to {verb} dev;")


@pytest.mark.parametrize("operation", [*OPERATIONS, nixos.verify])
def test_a_machine_that_talks_nonsense_is_unknown_and_left_alone(machine: Machine, operation: Any) -> None:
    run = machine(NIXOS, runs(), "echo 'exit 3' >> /etc/os-release")
    for plan in (True, False):
        outcome = run(operation, plan=plan)
        assert outcome.failed
        assert outcome.said[-1] == "dev: the machine did not say what runs on it; run this again"


def test_our_installer_is_left_as_it_is(machine: Machine, shared: Shared) -> None:
    outcome = machine(INSTALLER, ours(shared))(installer.boot)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said


def test_an_installer_that_a_killed_run_booted_is_marked_then(
    machine: Machine, shared: Shared, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "prove_by_word", lambda *given: None)  # the emulator's agent writes on no sshd
    run = machine(INSTALLER)
    key = emulator.client().agent_read("prom", 110, "/etc/ssh/ssh_host_ed25519_key.pub").strip()
    shared.run.state_of("dev").note("kexec", f"{mark(shared.fleet, 'dev')}\n{key}\n")
    outcome = run(installer.boot)
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said
    assert outcome.said[-1] == "mark the installer of dev as ours"
    assert shared.run.state_of("dev").noted("kexec") is None
    assert not run(installer.boot).changed


def test_an_installer_is_not_touched_before_its_root_has_what_the_agent_wrote(
    machine: Machine, shared: Shared, emulator: Emulator
) -> None:
    run = machine(INSTALLER)
    key = emulator.client().agent_read("prom", 110, "/etc/ssh/ssh_host_ed25519_key.pub").strip()
    note = f"{mark(shared.fleet, 'dev')}\n{key}\n"
    shared.run.state_of("dev").note("kexec", note)
    outcome = run(installer.boot)
    assert outcome.failed
    assert "it does not have what the agent wrote down for its root; nothing was done there" in outcome.said[-1]
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert shared.run.state_of("dev").noted("kexec") == note


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_disk_is_touched_of_a_machine_that_only_looks_like_the_guest(
    machine: Machine, shared: Shared, sshd: Sshd, operation: Any
) -> None:
    """To the last bit of what it shows; the emulator's agent writes on no sshd."""
    done = (ours(shared), MOUNTED, job("install", f"{SYSTEM} 0" if operation is nixos.reboot_installed else "other 0"))
    outcome = machine(*(DEBIAN,) if operation is installer.boot else (INSTALLER, *done))(operation)
    assert outcome.failed
    assert "it does not have what the agent wrote down for its root; nothing was done there" in outcome.said[-1]
    assert shared.run.failures == {"dev": Exit.REFUSED}
    planned = operation is not installer.boot  # what a clone is cannot be asked before cloud-init is done
    assert sshd.commands == 3 + planned  # the proof, what runs there, planned and executing, and the word


def test_disks_that_are_formatted_and_mounted_stay(machine: Machine, shared: Shared) -> None:
    done = (ours(shared), MOUNTED, job("disko", f"{SCRIPT} 0"))
    outcome = machine(INSTALLER, *done)(disko.format_disks)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said


@pytest.mark.parametrize("state", ["/nix/store/another-script 0", f"{SCRIPT} 1", ""])
def test_disks_are_formatted_anew_after_another_script_or_a_bad_end(
    machine: Machine, shared: Shared, state: str
) -> None:
    run = machine(INSTALLER, ours(shared), MOUNTED, job("disko", state))
    planned = run(disko.format_disks, plan=True)
    assert planned.changed
    assert planned.said[-1] == "wipe /dev/sda of dev, partition, format and mount below /mnt"


def test_without_a_disko_script_there_is_nothing_to_run(machine: Machine, shared: Shared) -> None:
    evaluates_to(shared, disko_script=None)
    outcome = machine(INSTALLER, ours(shared))(disko.format_disks)
    assert outcome.failed
    assert "config.system.build.diskoScript is missing; import disko" in outcome.said[-1]


def test_what_was_installed_whole_is_not_installed_again(machine: Machine, shared: Shared) -> None:
    run = machine(INSTALLER, ours(shared), MOUNTED, job("install", f"{SYSTEM} 0"))
    assert not run(nixos.install).changed
    assert run(nixos.reboot_installed, plan=True).said[-1] == "reboot dev into its installed system"


def test_nothing_is_installed_where_nothing_is_mounted(machine: Machine, shared: Shared) -> None:
    outcome = machine(INSTALLER, ours(shared))(nixos.install)
    assert outcome.failed
    assert outcome.said[-1] == "dev: nothing is mounted at /mnt; run `nixherd install` from its start"


def test_nothing_is_rebooted_before_it_is_installed(machine: Machine, shared: Shared) -> None:
    outcome = machine(INSTALLER, ours(shared), MOUNTED, job("install", "/nix/store/another 0"))(nixos.reboot_installed)
    assert outcome.failed
    assert outcome.said[-1] == "dev is not installed yet; run `nixherd install` from its start"


def test_proof_is_read_back_and_left_for_ci(machine: Machine, shared: Shared) -> None:
    outcome = machine(NIXOS, runs())(nixos.verify)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said
    report = json.loads((shared.run.state_of("dev").directory / "verified.json").read_text())
    assert (report["system"], report["hostname"], report["revision"]) == (SYSTEM, "dev", DESCRIBED.revision)


@pytest.mark.parametrize(
    ("revision", "shown"),
    [(None, "unknown"), ("9ab1" * 10, "9ab19ab19ab1")],
)
def test_another_revision_of_the_same_system_is_said_and_is_no_failure(
    machine: Machine, shared: Shared, revision: str | None, shown: str
) -> None:
    shared.run.arrived.add("dev")
    outcome = machine(NIXOS, runs(revision=revision))(nixos.verify)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said
    text = f"dev notes revision {shown}, the flake is at 4f2c0d9b7e6a, which is the same system: deploy it to note that"
    assert text in outcome.said
    report = json.loads((shared.run.state_of("dev").directory / "verified.json").read_text())
    assert (report["revision"], report["flake_revision"]) == (revision, DESCRIBED.revision)


@pytest.mark.parametrize(
    ("setup", "complaint"),
    [
        (runs(system=SYSTEM.replace("0v9", "2v9")), f"system is {SYSTEM.replace('0v9', '2v9')}, not {SYSTEM}"),
        (f"{runs()}; hostname other", "hostname is other, not dev"),
    ],
)
def test_another_system_than_the_flakes_is_no_proof(
    machine: Machine, shared: Shared, setup: str, complaint: str
) -> None:
    shared.run.arrived.add("dev")
    outcome = machine(NIXOS, setup)(nixos.verify)
    assert outcome.failed
    assert outcome.said[-1].startswith(f"dev: {complaint}")
    assert not (shared.run.state_of("dev").directory / "verified.json").exists()


def test_what_runs_is_said_as_it_was_read(machine: Machine, shared: Shared) -> None:
    """It was installed from an earlier revision, and so runs another system than the flake's present one."""
    other = SYSTEM.replace("0v9", "2v9")
    shared.run.state_of("dev").note("installed", other)
    outcome = machine(NIXOS, runs(system=other, revision="9ab1" * 10))(nixos.verify)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said
    assert any(line.startswith(f"dev at 127.0.0.1 runs {other} (revision 9ab19ab19ab1) from ") for line in outcome.said)
    assert not any(SYSTEM in line for line in outcome.said)
    report = json.loads((shared.run.state_of("dev").directory / "verified.json").read_text())
    assert report["system"] == other


# Hardware


@pytest.fixture
def flake(tmp_path: Path, shared: Shared) -> Path:
    """The host's flake, in no git tree, with a hardware configuration that says nothing yet."""
    (tmp_path / "flake/hosts/dev").mkdir(parents=True)
    file = tmp_path / "flake/hosts/dev/hardware-configuration.nix"
    file.write_text("{ }\n")
    dev = replace(shared.host("dev"), configuration_file=str(file.with_name("configuration.nix")))
    shared.fleet = replace(shared.fleet, path=str(tmp_path / "flake"), hosts={"dev": dev})
    return file


GENERATES = (
    "printf '#!/bin/sh\\necho \"# $*\"\\n' > /usr/bin/nixos-generate-config; chmod +x /usr/bin/nixos-generate-config"
)


def test_what_the_machine_has_is_written_once(machine: Machine, shared: Shared, flake: Path) -> None:
    run = machine(INSTALLER, ours(shared), GENERATES)
    planned = run(nixos.hardware_configuration, plan=True, path=True)
    assert planned.said[-1] == f"write what hardware dev has to {flake}"
    assert flake.read_text() == "{ }\n"
    assert run(nixos.hardware_configuration, path=True).changed
    assert flake.read_text() == "# --show-hardware-config --no-filesystems --root /mnt\n"
    assert not run(nixos.hardware_configuration, path="hosts/dev/hardware-configuration.nix").changed


def test_hardware_is_written_into_the_flake_only(machine: Machine, shared: Shared, flake: Path) -> None:
    run = machine(INSTALLER, ours(shared), GENERATES)
    (flake.parents[3] / "outside.nix").write_text("{ }\n")
    for path, complaint in (("../outside.nix", "is not in the flake"), ("hosts/nothing.nix", "not there; create it")):
        outcome = run(nixos.hardware_configuration, path=path)
        assert outcome.failed
        assert complaint in outcome.said[-1]
    assert flake.read_text() == "{ }\n"


# Jobs: systemd's part is seen in the lab; here it is a program that says how the unit stands


def jobs(script: str) -> str:
    """A systemd that runs a unit at once, and a systemctl by which none is active."""
    return (
        f"printf '#!/bin/sh\\n{script}\\n' > /usr/bin/systemd-run\n"
        "printf '#!/bin/sh\\nexit 3\\n' > /usr/bin/systemctl\n"
        "chmod +x /usr/bin/systemd-run /usr/bin/systemctl"
    )


RUNS_IT = 'while [ "$1" != sh ]; do shift; done; exec "$@"'


def perform_job(shared: Shared, sshd: Sshd, what: str, deadline: int = 5) -> None:
    host = executing(connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10))
    connector_of(host).installs = True
    run_job(machine_for(host), Job("try", "key", what, deadline))


def test_a_job_runs_to_its_end_and_not_again(machine: Machine, shared: Shared, sshd: Sshd) -> None:
    machine(INSTALLER, ours(shared), jobs(RUNS_IT))
    for _ in range(2):
        perform_job(shared, sshd, "echo once >> /run/times; test $(wc -l < /run/times) = 1")


def test_a_job_that_fails_says_its_last_words(machine: Machine, shared: Shared, sshd: Sshd) -> None:
    machine(INSTALLER, ours(shared), jobs(RUNS_IT))
    with pytest.raises(FleetError, match=r"^dev: try failed with status 1: mkfs: no space$"):
        perform_job(shared, sshd, "echo mkfs: no space; false; echo never")


def test_a_job_that_was_killed_is_not_waited_for(machine: Machine, shared: Shared, sshd: Sshd) -> None:
    machine(INSTALLER, ours(shared), jobs("exit 0"))
    with pytest.raises(FleetError, match=r"^dev: try was ended \(its deadline, or no memory left\)"):
        perform_job(shared, sshd, "true")


# What ends the machine that it runs on


def test_a_machine_that_is_gone_before_it_answers_did_as_it_was_told(
    machine: Machine, shared: Shared, sshd: Sshd
) -> None:
    machine(INSTALLER, ours(shared), ":")
    host = executing(connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10))
    connector_of(host).installs = True
    restart(machine_for(host), "sleep 0.2; kill -9 $PPID")  # the shared, as a boot does that comes before the answer
    with pytest.raises(FleetError, match=r"the reboot failed: umount: target is busy$"):
        restart(machine_for(host), "echo umount: target is busy >&2; false")
