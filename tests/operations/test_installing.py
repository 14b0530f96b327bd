"""What an installation takes along and how far it goes: further files, keys of disks, phases, reports."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.deploy import carried
from nixherd.fleet.groups import PHASES
from nixherd.link import proving
from nixherd.operations import disko, nixos
from nixherd.proxmox.permission import mark
from nixherd.pyinfra_glue import carrying
from nixherd.pyinfra_glue.carrying import keys_in_memory
from nixherd.pyinfra_glue.hosts import connector_of
from nixherd.pyinfra_glue.installing import disko_job, machine_for
from tests.operations.test_machine_operations import (  # noqa: F401  (fixtures)
    DEBIAN,
    INSTALLER,
    MOUNTED,
    NIXOS,
    RUNS_IT,
    Machine,
    flake,
    job,
    jobs,
    machine,
    ours,
    runs,
)
from tests.runs import SCRIPT, SYSTEM, Said, connected, executing, perform
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

ROWS = [
    (nixos.extra_files, "disko"),
    (disko.format_disks, "kexec"),
    (nixos.install, "disko"),
    (nixos.reboot_installed, "install"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a secret, a program and a link."""
    top = tmp_path / "tree"
    (top / "etc/deep down").mkdir(parents=True)
    (top / "etc/deep down/secret").write_bytes(bytes(range(256)))
    (top / "etc/deep down/secret").chmod(0o440)
    (top / "etc/deep down").chmod(0o710)
    (top / "etc/link").symlink_to("/run/secrets/x")
    top.chmod(0o700)
    return top


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the emulator's agent would write on no sshd, and of a fleet that has no files."""
    monkeypatch.setattr(proving, "prove_by_word", lambda *given: None)
    monkeypatch.setattr(carrying, "require_still_installable", lambda *given: None)


@pytest.mark.usefixtures("proven")
def test_files_are_carried_once_and_read_back(machine: Machine, shared: Shared, tree: Path, sshd: Sshd) -> None:  # noqa: F811
    run = machine(INSTALLER, ours(shared), MOUNTED)
    owners = {"/etc/deep down": "1000:100"}
    planned = run(nixos.extra_files, plan=True, files=str(tree), owners=owners)
    assert planned.said[-1] == "put 2 further files into the new root of dev"
    outcome = run(nixos.extra_files, files=str(tree), owners=owners)
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said
    host = executing(connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10))
    connector_of(host).installs = True
    there = (
        machine_for(host)
        .run("cd /mnt; stat -c '%a %u %g %n' . etc etc/deep* etc/deep*/secret; readlink etc/link")
        .stdout
    )
    assert there.splitlines() == [
        "1777 0 0 .",  # of the tmpfs, as it was
        "755 0 0 etc",
        "710 1000 100 etc/deep down",
        "440 1000 100 etc/deep down/secret",
        "/run/secrets/x",
    ]
    again = run(nixos.extra_files, files=str(tree), owners=owners)
    assert (again.changed, again.failed) == (False, False), again.said
    (tree / "etc/deep down/secret").chmod(0o400)
    assert run(nixos.extra_files, files=str(tree), owners=owners).changed


@pytest.mark.usefixtures("proven")
def test_files_do_not_go_through_a_link(machine: Machine, shared: Shared, tree: Path) -> None:  # noqa: F811
    outcome = machine(INSTALLER, ours(shared), MOUNTED, "ln -s /elsewhere /mnt/etc")(nixos.extra_files, files=str(tree))
    assert outcome.failed
    assert outcome.said[-1] == "dev: extra_files: /etc is not a directory there; correct the tree"


def test_files_that_cannot_be_carried_are_refused_before_anything(machine: Machine, shared: Shared, sshd: Sshd) -> None:  # noqa: F811
    outcome = machine(INSTALLER, ours(shared), MOUNTED)(nixos.extra_files, files="/nowhere")
    assert outcome.failed
    assert outcome.said == ["dev: extra_files: /nowhere is not there, or no directory; correct its path"]


@pytest.mark.usefixtures("proven")
def test_files_that_arrive_otherwise_are_said(
    machine: Machine,  # noqa: F811
    shared: Shared,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = carried.archive
    monkeypatch.setattr(
        carrying,
        "archive",
        lambda entries: pack(replace(each, mode=0o644) if each.kind == carried.FILE else each for each in entries),
    )
    outcome = machine(INSTALLER, ours(shared), MOUNTED)(nixos.extra_files, files=str(tree))
    assert outcome.failed
    assert outcome.said[-1] == (
        "dev: extra_files are not there as they were sent: /etc/deep down/secret is f 644 0:0, not f 440 0:0; "
        "run this again"
    )


# Keys of encrypted disks


KEY, FILE = "/tmp/keys/secret.key", b"\0a secret\n"
USES = f"stat -c %a $(dirname {KEY}) {KEY} >/run/modes; cat {KEY} >/run/used"


def with_keys(shared: Shared, sshd: Sshd, script: str, keys: dict[str, bytes]) -> str:
    """Run a disko script with these keys, and return what is left and what it saw."""
    host = executing(connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10))
    connector_of(host).installs = True
    there = machine_for(host)
    todo = replace(disko_job(script, keys), deadline=5)
    try:
        with keys_in_memory(there, keys, todo):
            there.run(todo.start, stdin=todo.body)
            if "broken" in script:
                raise FleetError("broken")
    except FleetError as error:
        if str(error) != "broken":
            raise
    return there.run(f"cat /run/modes; od -An -c /run/used; ls {KEY}* 2>&1; grep -l secret.key /nixherd/*").stdout


def test_a_key_is_there_for_root_alone_while_the_script_runs_and_nowhere_afterwards(
    machine: Machine,  # noqa: F811
    shared: Shared,
    sshd: Sshd,
) -> None:
    memory = "mkdir -p /tmp && mount -t tmpfs tmpfs /tmp"
    machine(INSTALLER, ours(shared), MOUNTED, memory, jobs(RUNS_IT))
    for script in (USES, f"{USES}; broken"):
        lines = with_keys(shared, sshd, script, {KEY: FILE}).splitlines()
        assert lines[:2] == ["700", "400"]
        assert lines[2].split() == [*r"\0 a", *"secret", r"\n"] or lines[2].replace(" ", "") == r"\0asecret\n"
        assert f"ls: cannot access '{KEY}*'" in lines[3]


def test_a_key_is_written_to_memory_alone(machine: Machine, shared: Shared, sshd: Sshd) -> None:  # noqa: F811
    machine(INSTALLER, ours(shared), "mkdir /disk; mount --bind /proc /disk", jobs(RUNS_IT))
    with pytest.raises(FleetError, match=r"writing /disk/a.key failed: /disk is not in memory: no key is written"):
        with_keys(shared, sshd, "true", {"/disk/a.key": FILE})


# Phases


@pytest.mark.parametrize(("operation", "before"), ROWS)
def test_a_phase_needs_what_comes_before_it_also_in_a_plan(
    machine: Machine,  # noqa: F811
    shared: Shared,
    sshd: Sshd,
    said: Said,
    tree: Path,
    operation: Any,
    before: str,
) -> None:
    run = machine(DEBIAN)
    files = {"files": str(tree)} if operation is nixos.extra_files else {}
    assert run(operation, plan=True, **files).changed
    late = ",".join(PHASES[PHASES.index(before) + 1 :])
    host = connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10, phases=late)
    outcome = perform(host, said, operation, plan=True, **files)
    assert outcome.failed
    assert outcome.said[-1].startswith("dev is not in an installer that this fleet booted for it")


@pytest.mark.parametrize(
    ("phase", "done", "end"),
    [
        ("kexec", (), "in its installer, its disks as they were"),
        (
            "disko",
            (MOUNTED, job("disko", f"{SCRIPT} 0")),
            "in its installer, its disks formatted and mounted, not installed",
        ),
        ("install", (MOUNTED, job("install", f"{SYSTEM} 0")), "installed, not rebooted"),
    ],
)
def test_how_far_it_came_is_read_back(
    machine: Machine,  # noqa: F811
    shared: Shared,
    phase: str,
    done: tuple[str, ...],
    end: str,
) -> None:
    run = machine(INSTALLER, ours(shared), *done)
    assert run(nixos.reached, plan=True, phase=phase).said[-1] == f"verify that dev is {end}"
    outcome = run(nixos.reached, phase=phase)
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said
    if phase != "install":
        assert run(nixos.reached, phase="install").said[-1] == (
            "dev is not installed, not rebooted, as the machine says; run this again"
        )


def test_an_installed_machine_is_past_every_phase(machine: Machine) -> None:  # noqa: F811
    outcome = machine(NIXOS, runs())(nixos.reached, phase="install")
    assert (outcome.changed, outcome.failed) == (False, False), outcome.said


# Hardware


def facter(says: str) -> str:
    return f"printf '%s\\n' '#!/bin/sh' 'echo {says}' >/usr/bin/nixos-facter; chmod +x /usr/bin/nixos-facter"


def test_what_facter_reports_is_written_once(machine: Machine, shared: Shared, flake: Path) -> None:  # noqa: F811
    report = flake.with_name("facter.json")
    report.write_text("{}\n")
    run = machine(INSTALLER, ours(shared), facter(r"{\"version\":1}"))
    assert run(nixos.hardware_report, path=True).changed
    assert json.loads(report.read_text()) == {"version": 1}
    assert not run(nixos.hardware_report, path="hosts/dev/facter.json").changed


@pytest.mark.parametrize(
    ("has", "complaint"),
    [
        (":", "dev: its installer lacks nixos-facter; an installer of nixos-images has it, or write hardware-conf"),
        (facter("oops"), "dev: nixos-facter printed no JSON object: 'oops'"),
    ],
)
def test_a_report_that_is_none(machine: Machine, shared: Shared, flake: Path, has: str, complaint: str) -> None:  # noqa: F811
    flake.with_name("facter.json").write_text("{}\n")
    outcome = machine(INSTALLER, ours(shared), has)(nixos.hardware_report, path=True)
    assert outcome.failed
    assert outcome.said[-1].startswith(complaint)
    assert mark(shared.fleet, "dev")
    assert flake.with_name("facter.json").read_text() == "{}\n"
