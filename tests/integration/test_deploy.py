"""Deployments in the lab: whatever the new system breaks, each machine ends on it, proven, or on the one of before.

What runs on a machine is read by OpenSSH, with its pinned key, past the code under test.
"""

import json
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import pytest

from tests.integration.deployed import DEADLINES, MEND, NO_TOKEN, Fleet, order, outcomes, readonly
from tests.integration.lab_driver import until
from tests.integration.verified import report

pytestmark = pytest.mark.slow

ON_ITS_WAY = 3  # seconds within which a machine has begun what a killed run told it last

# What each fault is told as, and within how many seconds its machine is on the old system again: as many
# as a busy machine takes, and fewer than a deadline that nobody asked for.
FAULTS = {
    "activation-fails": ("the activation ended with status 2", 40),
    "another-key": ("shows another host key than the pinned one", 90),
    "activation-hangs": ("the activation did not end within 8 s", 60),
    "boot-full": ("the boot entry cannot be written: Failed to install bootloader", 45),
    "disk-full": ("the profile cannot be set: ", 45),
    "network-gone": ("nobody confirmed it within 10 s", 90),
    "no-systemd-run": ("the activation ended with status 2", 45),
    "oneshot-hangs": ("the activation did not end within 8 s; it waits for fault.service", 90),
    "reboots": ("it rebooted in the middle of the activation", 75),
    "sshd-broken": ("units failed: sshd.service", 45),
    "sshd-elsewhere": ("nobody confirmed it within 10 s", 90),
    "store-corrupted": ("the boot entry cannot be written: ", 45),
    "unit-fails": ("units failed: fault.service", 45),
    "wrong-host": ("hostname is somebody-else, not {host}", 45),
}


def batched(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """By twos: each deployment breaks two machines at once."""
    each = iter(names)
    return zip(each, each, strict=True)


def test_deployed_proven_and_kept_and_the_second_run_does_nothing(fleet: Fleet) -> None:
    for host in ("dev", "dev2", "dev3"):
        fleet.change(host, f"first {host}")
    before = {host: fleet.machine(host) for host in ("dev", "dev2", "dev3")}
    ended, document = fleet.deploy("dev", "dev2", "dev3")
    assert ended.status == 0
    assert outcomes(document) == dict.fromkeys(before, "deployed")
    for row in document["hosts"]:
        now = fleet.machine(row["host"])
        assert now.current == now.profile == row["new"] != before[row["host"]].current == row["old"]
        assert now.default != before[row["host"]].default
        assert now.marker == f"first {row['host']}"
        assert row["revision"] == row["noted"] == fleet.head
        assert fleet.noted(row["host"])[:2] == [now.current, fleet.head]
    ended, document = fleet.deploy("dev", "dev2", "dev3")
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(before, "unchanged"))
    assert {row["stage"] for row in document["hosts"]} == {"evaluate"}


def test_another_revision_of_the_same_systems_is_noted_and_nothing_else_is_done(fleet: Fleet) -> None:
    """A document that is committed; and a disk that is full fails nothing that is good."""
    fleet.change("dev", "with a document")
    fleet.deploy("dev", "dev2")
    before, old = {host: fleet.machine(host) for host in ("dev", "dev2")}, fleet.head
    (fleet.lab.places.fleet / "NOTES.md").write_text("What nobody runs.\n")
    fleet.commit()
    output = fleet.lab.run("sh", "-c", "nixherd plan dev dev2 --table 2>/dev/null").output
    assert f"dev, dev2:\n  revision only: {old[:12]} → {fleet.head[:12]}\n" in output
    assert fleet.noted("dev")[1] == old, "a plan notes nothing"
    generations = "ls /nix/var/nix/profiles; stat -c %Z /nix/var/nix/profiles/system /run/current-system"
    were = {host: fleet.on(host, generations).output for host in before}
    ended, document = fleet.deploy("dev", "dev2")
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(before, "revision only")), document
    assert {host: fleet.machine(host) for host in before} == before
    assert {host: fleet.on(host, generations).output for host in before} == were
    for row in document["hosts"]:
        assert (row["revision"], row["noted"], row["why"]) == (
            fleet.head,
            fleet.head,
            f"{old[:12]} → {fleet.head[:12]}",
        )
        path, revision, _when, who, run = fleet.noted(row["host"])
        assert (path, revision, run) == (before[row["host"]].current, fleet.head, document["run"])
        assert who == document["who"]

    full = "mount -t tmpfs -o size=4k tmpfs /var/lib/nixherd; cat /dev/zero >/var/lib/nixherd/filler"
    fleet.on("dev", f"sudo sh -c '{full}'", check=False)
    fleet.change("dev", "without room for a note")
    ended, document = fleet.deploy("dev", "dev2", check=False)
    fleet.on("dev", "sudo umount /var/lib/nixherd")
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed", "dev2": "revision only"}), document
    row = document["hosts"][0]
    assert row["noted"] is None
    assert "No space left on device" in row["unnoted"]
    assert (fleet.noted("dev"), fleet.noted("dev2")[1]) == ([], fleet.head)


def test_the_plan_copies_and_activates_nothing(fleet: Fleet) -> None:
    fleet.change("dev", "planned")
    before = fleet.machine("dev")
    output = fleet.lab.run("sh", "-c", "nixherd plan dev --table 2>/dev/null").output
    assert "dev  planned" in output
    assert "closure " in output
    assert "needs a reboot: no" in output
    ended = fleet.lab.run("sh", "-c", "nixherd plan dev --json 2>/dev/null")
    [row] = json.loads(ended.output)["hosts"]
    assert fleet.on("dev", f"test -e {row['new']}", check=False).status == 1
    assert fleet.machine("dev") == before


@pytest.mark.parametrize("faults", [*batched(FAULTS)], ids="+".join)
def test_broken_systems_end_on_the_one_of_before_and_the_others_are_deployed(
    fleet: Fleet, faults: tuple[str, str]
) -> None:
    broken = dict(zip(("dev", "dev2"), faults, strict=True))
    before = {host: fleet.machine(host) for host in broken}
    fleet.change("dev3", "beside " + "+".join(faults))
    for host, fault in broken.items():
        fleet.lab("break", host, fault)
    try:
        ended, document = fleet.deploy(*broken, "dev3", *DEADLINES, check=False)
    finally:
        fleet.lab("break", "dev2")
        until(lambda: fleet.on("dev2", MEND, check=False).status == 0, 60, "dev2 answers")
    assert (ended.status, document["summary"]) == (1, "1 deployed, 2 rolled back"), document
    assert fleet.machine("dev3").marker == "beside " + "+".join(faults)
    until(lambda: fleet.on("dev", MEND, check=False).status == 0, 60, "dev answers")
    rows = {row["host"]: row for row in document["hosts"]}
    for host, fault in broken.items():
        output, seconds = FAULTS[fault]
        assert output.format(host=host) in rows[host]["why"], rows[host]
        assert rows[host]["seconds"] < seconds
        now, was = fleet.machine(host), before[host]
        assert (now.current, now.profile, now.marker) == (was.current, was.profile, was.marker)


def test_what_a_timer_has_started_meanwhile_is_left_alone(fleet: Fleet) -> None:
    """Going back cancels what the activation left queued, not a backup that happens to run."""
    backup = (
        'systemd.services.backup.serviceConfig = { Type = "oneshot"; ExecStart = "/usr/bin/sleep 60"; }; '
        'systemd.timers.backup = { wantedBy = ["timers.target"]; timerConfig.OnCalendar = "2099-01-01"; };'
    )
    fleet.broken_by("dev", f"{{ {backup} }}")
    fleet.deploy("dev")
    hangs = 'systemd.services.x = { wantedBy = ["multi-user.target"]; serviceConfig = { Type = "oneshot"; ExecStart = '
    fleet.broken_by("dev", f'{{ {backup} {hangs} "/usr/bin/sleep 1000"; }}; }}; }}')
    with fleet.lab.under_way("nixherd", "deploy", "dev", *DEADLINES) as run:
        run.until(lambda line: line.startswith("dev: activate"))
        until(lambda: _under_way(fleet), 10, "it is at work")
        fleet.on("dev", "sudo systemctl start --no-block backup.service")
        ended = run.end()
    assert (ended.status, "it waits for" in ended.output, "x.service" in ended.output) == (1, True, True)
    assert fleet.on("dev", "systemctl is-active backup.service", check=False).output.strip() == "activating"
    assert "x.service" not in fleet.on("dev", "systemctl list-jobs --no-legend").output
    fleet.on("dev", "sudo systemctl stop backup.service")


def test_several_at_once_on_one_wave(fleet: Fleet) -> None:
    before = {host: fleet.machine(host) for host in ("dev", "dev2")}
    fleet.change("dev3", "beside two")
    fleet.lab("break", "dev", "disk-full", "unit-fails", "session-killed")
    fleet.lab("break", "dev2", "network-gone", "oneshot-hangs")
    try:
        ended, document = fleet.deploy("dev", "dev2", "dev3", *DEADLINES, check=False)
        assert (ended.status, document["summary"]) == (1, "1 deployed, 2 rolled back")
    finally:
        fleet.lab("break", "dev2")
        until(lambda: fleet.on("dev2", MEND, check=False).status == 0, 60, "dev2 answers")
    fleet.on("dev", MEND)
    for host, was in before.items():
        now = fleet.machine(host)
        assert (now.current, now.profile) == (was.current, was.profile)
    assert fleet.machine("dev3").marker == "beside two"


def test_a_damaged_copy_is_not_activated(fleet: Fleet) -> None:
    fleet.change("dev", "to be damaged")
    before = fleet.machine("dev")
    plan = fleet.lab.run("sh", "-c", "nixherd plan dev --dry-copy --json 2>/dev/null")
    [row] = json.loads(plan.output)["hosts"]
    file = f"{row['new']}/activate"
    damage = f"mount -o remount,rw /nix/store 2>/dev/null; chmod u+w {file}; echo >>{file}"
    fleet.on("dev", f"sudo sh -c {shlex.quote(damage)}")
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev": "failed"})
    why = document["hosts"][0]["why"]
    assert f"{row['new']} is damaged in its store" in why
    assert fleet.machine("dev") == before
    fleet.on("dev", f"sudo {why.split('`')[1].replace('nix ', 'nix --extra-experimental-features nix-command ')}")
    assert outcomes(fleet.deploy("dev")[1]) == {"dev": "deployed"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [("old-corrupted", "it is stuck on /nix/store/"), ("powered-off", "last: vm 110 (dev) is stopped")],
)
def test_a_machine_that_cannot_act_is_reported_and_a_boot_brings_the_one_of_before(
    fleet: Fleet, fault: str, message: str
) -> None:
    before = fleet.machine("dev")
    fleet.lab("break", "dev", fault)
    fleet.change("dev2", fault)
    # one that is ours to reboot would do that by itself
    with readonly(fleet, 110) if fault == "old-corrupted" else nullcontext():
        ended, document = fleet.deploy("dev", "dev2", *DEADLINES, check=False)
    if fault == "powered-off":
        fleet.lab.api_task("/nodes/prom/qemu/110/status/start")
    assert (ended.status, outcomes(document)) == (5, {"dev": "unknown", "dev2": "deployed"}), document
    why = document["hosts"][0]["why"]
    assert message in why
    how = re.search(r"see `(nixherd fact dev [^`]+)`", why)
    assert how, why
    if fault == "old-corrupted":
        last = fleet.lab.run(*how[1].split())
        assert "stuck" in last.output
        fleet.on("dev", "sudo systemctl reboot", check=False)
    boots = f"test $(readlink -f /run/current-system) = {before.current} && ! test -e /run/nixherd"
    until(lambda: fleet.on("dev", boots, check=False).status == 0, 60, "dev runs what it ran before")
    now = fleet.machine("dev")
    assert (now.profile, now.marker) == (before.profile, before.marker)
    put_back = f"test ! -e /var/damaged || mv /var/damaged {before.current}/bin/switch-to-configuration"
    fleet.on("dev", f"sudo sh -c 'mount -o remount,rw /nix/store 2>/dev/null; {put_back}'")


def test_a_wrong_machine_behind_the_address_gets_nothing(fleet: Fleet) -> None:
    """The hypervisor knows a better one, where it is asked; else nobody is deployed to."""
    fleet.change("dev", "for dev alone")
    other, before = report(fleet.lab, "dev2")["address"], fleet.machine("dev2")
    with order(fleet, dev=f'addresses = [ "{other}" ];'):
        ended = fleet.lab.run("sh", "-c", "nixherd deploy dev --json 2>/dev/null", env=NO_TOKEN, check=False)
        document = json.loads(ended.output)
        assert (ended.status, outcomes(document)) == (4, {"dev": "unreachable"})
        assert "shows another host key than the pinned one" in document["hosts"][0]["why"]
        assert "nothing was sent to it" in document["hosts"][0]["why"]
        ended, document = fleet.deploy("dev")
        assert outcomes(document) == {"dev": "deployed"}
    assert fleet.machine("dev").marker == "for dev alone"
    assert fleet.machine("dev2") == before


@pytest.mark.parametrize("fault", ["clock-wrong", "session-killed"])
def test_what_an_activation_may_do_stops_nothing(fleet: Fleet, fault: str) -> None:
    fleet.lab("break", "dev", fault)
    ended, document = fleet.deploy("dev", *DEADLINES)
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    now = fleet.machine("dev")
    assert now.current == now.profile == document["hosts"][0]["new"]


def test_a_killed_run_leaves_one_system_or_the_other_and_the_next_one_converges(fleet: Fleet) -> None:
    """Killed in one stage after the other: each run finds what the killed one before it left."""
    fleet.deploy("dev")  # where it goes back to is not a system that a test before this one has broken
    for stage in ("evaluate", "copy", "activate", "prove", "keep"):
        fleet.change("dev", f"killed at {stage}")
        before = fleet.machine("dev")
        with fleet.lab.under_way("nixherd", "deploy", "dev", *DEADLINES) as run:
            run.until(lambda line, begins=f"dev: {stage}": line.startswith(begins))  # type: ignore[misc]
        until(lambda: _decided(fleet), 40, "the machine decides")
        time.sleep(ON_ITS_WAY)
        until(lambda: _decided(fleet), 40, "the machine decides about what was on its way to it")
        now = fleet.machine("dev")
        assert now.current in (before.current, now.profile), stage
        assert (now.current == before.current) == (now.profile == before.profile), stage
    ended, document = fleet.deploy("dev")
    assert (ended.status, outcomes(document)["dev"]) in ((0, "deployed"), (0, "unchanged"))
    assert fleet.machine("dev").marker == "killed at keep"


def test_a_run_that_was_killed_is_ended_by_the_next_one(fleet: Fleet) -> None:
    """At once: nobody waits for a machine's patience with a run that is dead."""
    fleet.lab("break", "dev", "activation-hangs")
    before = fleet.machine("dev")
    patient = ("--activation-deadline", "300", "--confirm-deadline", "300")
    with fleet.lab.under_way("nixherd", "deploy", "dev", *patient) as run:
        run.until(lambda line: line.startswith("dev: activate"))
        until(lambda: _under_way(fleet), 10, "it is at work")
    fleet.lab("break", "dev")
    fleet.change("dev", "after a killed run")
    ended = fleet.lab.run("nixherd", "deploy", "dev", "--table")
    assert "an earlier run was killed while it deployed here (activating); that is ended first" in ended.output
    assert ended.seconds < 60
    now = fleet.machine("dev")
    assert (now.marker, now.current) == ("after a killed run", now.profile)
    assert now.current != before.current


def _state(fleet: Fleet) -> str:
    """That of the machine's last deployment; a machine that does not answer has neither of the states below."""
    state = "sudo tail -n 1 /run/nixherd/deploy/current/state 2>/dev/null || echo nothing"
    return fleet.on("dev", state, check=False).output.strip()


def _under_way(fleet: Fleet) -> bool:
    return _state(fleet) in ("armed", "activating", "proving", "keeping", "reverting")


def _decided(fleet: Fleet) -> bool:
    return _state(fleet) in ("nothing", "kept", "reverted", "refused")


def test_an_interrupted_run_reports_what_it_knows(fleet: Fleet) -> None:
    fleet.lab("break", "dev", "activation-hangs")
    before = fleet.machine("dev")
    with fleet.lab.under_way("nixherd", "deploy", "dev", *DEADLINES, "--table") as run:
        run.until(lambda line: line.startswith("dev: activate"))
        fleet.lab.run("pkill", "-TERM", "-f", "[b]in/nixherd deploy")
        ended = run.end()
    assert ended.status == 130, ended.output
    assert "Traceback" not in ended.output
    assert "dev  unknown: the run ended while it was at activate; the machine decides by itself, see `" in ended.output
    until(lambda: _decided(fleet), 40, "the machine decides")
    assert fleet.machine("dev") == before


def test_two_operators_do_not_meet(fleet: Fleet) -> None:
    fleet.lab("break", "dev", "activation-hangs")
    patient = (
        "--activation-deadline",
        "300",
        "--confirm-deadline",
        "60",
    )  # longer than the second one may take to come
    with fleet.lab.under_way("nixherd", "deploy", "dev", *patient) as run:
        run.until(lambda line: line.startswith("dev: activate"))
        until(lambda: _under_way(fleet), 10, "the first one is at work")
        elsewhere = {"XDG_STATE_HOME": str(fleet.lab.state / "elsewhere")}
        ended = fleet.lab.run("nixherd", "deploy", "dev", "--table", check=False, env=elsewhere)
        assert ended.status == 4
        assert "is deploying to it (it is activating); nothing was done" in ended.output
        fleet.on("dev", "sudo pkill -f '[s]leep 100000'")
        assert run.end().status == 1
