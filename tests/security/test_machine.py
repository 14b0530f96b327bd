"""What a machine's guard makes of what happens around it: no room, failures of others, other versions, other tools.

What runs on a machine is read by OpenSSH, with its pinned key, past the code under test.
"""

import json
import os
import re
import shlex
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from nixherd.deploy import protocol as activation
from nixherd.deploy.journal import Journal, entries
from nixherd.deploy.machine import Machine
from nixherd.deploy.options import Goal, Options
from nixherd.deploy.plan import INHIBITORS, INIT, inhibitors_between
from nixherd.deploy.protocol import Deployment, Stage, parse
from nixherd.deploy.rebuild import judge
from nixherd.deploy.report import Outcome, report
from nixherd.deploy.run import HostRun, Rollout
from nixherd.deploy.running import Running
from nixherd.errors import FleetError, NotBegun, ProcessFailed, Undecided
from nixherd.exit_codes import Exit
from tests.integration.deployed import (  # noqa: F401  (fixtures)
    DEADLINES,
    Fleet,
    fleet,
    made,
    order,
    outcomes,
    readonly,
    signing_key,
)
from tests.integration.lab_driver import Ended, until
from tests.nixherd.proxmox.fleets import FLEET, HOST

HERE = Path(__file__).parent
LAB = [pytest.mark.slow, pytest.mark.lab]
ROOM = "sudo sh -c 'systemctl stop filler fault; rm -f /run/fault; systemctl reset-failed; true'"


def in_lab(test: Any) -> Any:
    for mark in LAB:
        test = mark(test)
    return test


def rows(document: dict[str, Any]) -> dict[str, Any]:
    return {row["host"]: row for row in document["hosts"]}


# A full /run


def _answers(fleet: Fleet, host: str) -> bool:  # noqa: F811
    return fleet.on(host, "true", check=False).status == 0


@in_lab
def test_a_full_run_holds_up_neither_keeping_nor_going_back(fleet: Fleet) -> None:  # noqa: F811
    """Kept where all is well; gone back with more room; where no room helps, by a boot."""
    faults = {"dev": "run-full-later", "dev2": "run-full", "dev3": "run-fills"}
    before = {host: fleet.machine(host) for host in faults}
    boots = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in faults}
    for host, fault in faults.items():
        fleet.lab("break", host, fault)
    _ended, document = fleet.deploy(*faults, *DEADLINES, check=False)
    try:
        output = rows(document)
        assert outcomes(document) == {"dev": "deployed", "dev2": "rolled back", "dev3": "rolled back"}, output
        assert "it rebooted in the middle of the activation" in output["dev3"]["why"]
        for host in faults:
            until(partial(_answers, fleet, host), 60, f"{host} answers")
            now = fleet.machine(host)
            assert now.current == now.profile == (output[host]["new"] if host == "dev" else before[host].current)
        after = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in faults}
        assert {host for host in faults if boots[host] != after[host]} == {"dev3"}
        # systemd has the old system's units again, too
        assert fleet.on("dev2", "systemctl show -p NeedDaemonReload --value sshd.service").output.strip() == "no"
    finally:
        for host in faults:
            fleet.on(host, ROOM, check=False)
            fleet.lab("break", host)


@in_lab
def test_a_machine_that_is_not_ours_to_reboot_stays_stuck_and_goes_on_trying(fleet: Fleet) -> None:  # noqa: F811
    before = fleet.machine("dev")
    boot = fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output
    fleet.lab("break", "dev", "run-fills")
    with readonly(fleet, 110):
        ended, document = fleet.deploy("dev", *DEADLINES, check=False)
        assert (ended.status, outcomes(document)) == (5, {"dev": "unknown"}), document
        why = document["hosts"][0]["why"]
        assert "it is stuck on " in why
        assert "not enough space available on /run" in why  # systemd's own words
        assert "goes on trying" in why
        assert "`ssh dev sudo systemctl reboot`" in why
    fleet.on("dev", ROOM)
    gone_back = "sudo tail -n 1 /run/nixherd/deploy/current/state | grep reverted"
    until(lambda: fleet.on("dev", gone_back, check=False).status == 0, 60, "it goes back by itself")
    now = fleet.machine("dev")
    assert (now.current, now.profile) == (before.current, before.profile)
    assert fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output == boot


@in_lab
def test_without_room_in_run_nothing_is_begun(fleet: Fleet) -> None:  # noqa: F811
    fleet.change("dev", "no room")
    before = fleet.machine("dev")
    fill = "mount -o remount,size=96m /run; cat /dev/zero >/run/fault"
    for free in ("true", "truncate -s -8M /run/fault"):
        fleet.on("dev", f"sudo sh -c '{fill}; {free}'", check=False)
        ended, document = fleet.deploy("dev", check=False)
        assert (ended.status, outcomes(document)) == (4, {"dev": "failed"}), document
        assert "is full" in document["hosts"][0]["why"]
        assert "nothing was changed" in document["hosts"][0]["why"]
        assert fleet.machine("dev") == before
    fleet.on("dev", ROOM)
    assert outcomes(fleet.deploy("dev")[1]) == {"dev": "deployed"}


# nixos-rebuild, and what *unchanged* means


REBUILD = """#!/bin/sh
# What nixos-rebuild does, step by step; it builds on the machine where it is told to.
case "$*" in --help) echo "usage: nixos-rebuild [--no-reexec] [--sudo]"; exit ;; esac
printf '%s\\n' "$@" >"$RECORD"
action=$1 flake=${3%#*} host=${3#*#} target=$6
set -e
drv=$(nix eval --raw "$flake#nixosConfigurations.$host.config.system.build.toplevel.drvPath")
nix-copy-closure --to "$target" "$drv"
system=$(ssh $NIX_SSHOPTS "$target" nix-store --realise "$drv")
profile=/nix/var/nix/profiles/system
ssh $NIX_SSHOPTS "$target" sudo nix-env -p $profile --set "$system"
unit="systemd-run --quiet --wait --collect --service-type=exec --unit=nixos-rebuild-switch-to-configuration"
unit="$unit -E NIXOS_NO_CHECK=${NIXOS_NO_CHECK:-}"
ssh $NIX_SSHOPTS "$target" sudo $unit "$system/bin/switch-to-configuration" "$action"
"""


@pytest.fixture
def nixos_rebuild(fleet: Fleet, tmp_path: Path) -> Any:  # noqa: F811
    (tmp_path / "nixos-rebuild").write_text(REBUILD)
    (tmp_path / "nixos-rebuild").chmod(0o755)

    def run(*words: str) -> tuple[Ended, dict[str, Any], list[str]]:
        command = f"PATH={tmp_path}:$PATH RECORD={tmp_path}/argv exec nixherd deploy dev --data engine=nixos-rebuild"
        ended = fleet.lab.run("sh", "-c", f"{command} {shlex.join(words)} --json 2>/dev/null", check=False)
        row = json.loads(ended.output)["hosts"][0]
        assert (tmp_path / "argv").exists(), row
        return ended, row, (tmp_path / "argv").read_text().splitlines()

    return run


@in_lab
def test_nixos_rebuild_is_judged_by_what_is_there_and_unchanged_is_more_than_a_path(
    fleet: Fleet,  # noqa: F811
    nixos_rebuild: Any,
) -> None:
    fleet.lab("break", "dev", "unit-fails")
    _ended, row, argv = nixos_rebuild("--build-on", "target")
    now = fleet.machine("dev")
    assert (row["outcome"], now.current, now.profile) == ("deployed, not well", row["new"], row["new"]), row
    assert argv.count(next(word for word in argv if "@" in word)) == 2  # --target-host and --build-host
    assert "fault.service" in row["why"]
    assert "nothing goes back" in row["why"]

    # by the guard: the path is there, the unit fails still
    ended, document = fleet.deploy("dev", check=False)
    [row] = document["hosts"]
    assert (ended.status, row["outcome"], row["stage"]) == (1, "unchanged, not well", "evaluate"), row
    assert "units fail there that did not when a deployment was kept last: fault.service" in row["why"]
    # plan says so, too
    plan = fleet.lab.run("sh", "-c", "nixherd plan dev --json 2>/dev/null", check=False)
    assert json.loads(plan.output)["hosts"][0]["outcome"] == "unchanged, not well"
    fleet.on("dev", "sudo systemctl reset-failed")
    assert outcomes(fleet.deploy("dev")[1]) == {"dev": "unchanged"}
    # health checks, asked with the path
    check = 'healthChecks.own = { command = "test -e /var/well || { echo ill; exit 1; }"; timeout = 1; };'
    fleet.on("dev", "sudo touch /var/well")
    with order(fleet, dev=check):
        fleet.lab("break", "dev")
        assert outcomes(fleet.deploy("dev")[1]) == {"dev": "deployed"}
        fleet.on("dev", "sudo rm /var/well")
        ended, document = fleet.deploy("dev", check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev": "unchanged, not well"}), document
        assert "does not pass: it says ill" in document["hosts"][0]["why"]
        fleet.on("dev", "sudo touch /var/well")
        assert outcomes(fleet.deploy("dev")[1]) == {"dev": "unchanged"}
    fleet.deploy("dev")
    # somebody else's switch hangs there, as the unit that nixos-rebuild starts, or as none
    hang = "sudo systemd-run --quiet --unit=nixos-rebuild-switch-to-configuration /usr/bin/sleep 1000"
    alone = (
        "sudo systemd-run --quiet --unit=elsewhere /usr/bin/flock /run/nixos/switch-to-configuration.lock sleep 1000"
    )
    for start, unit, output in (
        (hang, "nixos-rebuild-switch-to-configuration", "nixos-rebuild-switch-to-configuration.service"),
        (alone, "elsewhere", "(switch-to-configuration)"),
    ):
        fleet.on("dev", start)
        ended, document = fleet.deploy("dev", check=False)
        fleet.on("dev", f"sudo systemctl stop {unit}")
        assert (ended.status, outcomes(document)) == (1, {"dev": "unchanged, not well"}), document
        assert "an activation is under way there" in document["hosts"][0]["why"]
        assert output in document["hosts"][0]["why"]
    assert outcomes(fleet.deploy("dev")[1]) == {"dev": "unchanged"}


@in_lab
def test_a_profile_that_somebody_else_moves_meanwhile_is_in_the_report(fleet: Fleet) -> None:  # noqa: F811
    fleet.change("dev", "somebody else")
    fleet.deploy("dev")
    before = fleet.machine("dev")
    older = fleet.on("dev", "sudo nix-env -p /nix/var/nix/profiles/system --list-generations").output.split()[0]
    moves = "nix-env -p /nix/var/nix/profiles/system --switch-generation"
    fleet.broken_by(
        "dev", f'{{ system.activationScripts.fault = "{moves} {older}"; environment.etc.moved.text = ""; }}'
    )
    _ended, document = fleet.deploy("dev")
    [row] = document["hosts"]
    assert outcomes(document) == {"dev": "deployed"}
    assert "by somebody else meanwhile" in row["profile_moved"]
    assert fleet.machine("dev").profile == row["new"]
    # going back leaves it where somebody else has let it lead
    fleet.broken_by("dev", f'{{ system.activationScripts.fault = "{moves} {older}; false"; }}')
    _ended, document = fleet.deploy("dev", check=False)
    [row] = document["hosts"]
    assert row["outcome"] == "rolled back"
    assert f"its profile was moved from {row['old']} to " in row["profile_moved"]
    now = fleet.machine("dev")
    assert (now.current, now.profile != now.current) == (row["old"], True)
    fleet.on("dev", f"sudo nix-env -p /nix/var/nix/profiles/system --set {before.current}")


# Whose failure counts


@in_lab
def test_what_users_and_clocks_make_fail_is_reported_and_what_ran_is_not_to_fail(fleet: Fleet) -> None:  # noqa: F811
    ran = (
        'systemd.services.ran = { wantedBy = ["multi-user.target"]; serviceConfig.ExecStart = "/usr/bin/sleep inf"; };'
    )
    fleet.broken_by("dev", f"{{ {ran} }}")
    fleet.deploy("dev")
    fleet.lab("break", "dev", "user-fails")
    (fleet.lab.places.fleet / "hosts/dev/faults/default.nix").write_text(f"{{ imports = [ ./user-fails.nix ]; {ran} }}")
    fleet.commit()
    ended, document = fleet.deploy("dev", *DEADLINES, check=False)
    [row] = document["hosts"]
    assert (ended.status, row["outcome"]) == (0, "deployed"), row
    aside = " ".join(row["aside"])
    assert "clockwork.service" in aside
    assert "transient.service" in aside
    assert "caller@" in aside
    assert outcomes(fleet.deploy("dev")[1]) == {"dev": "unchanged"}
    before = fleet.machine("dev")
    # it is alike in both systems, runs when the activation begins, and is killed in the middle of it
    ends = '{ Type = "oneshot"; RemainAfterExit = true; ExecStart = "/usr/bin/systemctl kill -s KILL ran.service"; }'
    kill = f'systemd.services.ends = {{ wantedBy = ["multi-user.target"]; serviceConfig = {ends}; }};'
    (fleet.lab.places.fleet / "hosts/dev/faults/default.nix").write_text(f"{{ {ran} {kill} }}")
    fleet.commit()
    ended, document = fleet.deploy("dev", *DEADLINES, check=False)
    assert outcomes(document) == {"dev": "rolled back"}, document
    assert "units failed: ran.service" in document["hosts"][0]["why"]
    assert fleet.machine("dev") == before


# What the new system says against being switched to


@in_lab
def test_a_switch_inhibitor_is_told_from_a_failure_and_a_boot_goes_on_by_it(fleet: Fleet) -> None:  # noqa: F811
    inhibited = "dbus-implementation: dbus → broker"
    before = {host: fleet.machine(host) for host in ("dev", "dev2", "dev3")}
    boots = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in before}
    for host in before:
        fleet.lab("break", host, "needs-boot" if host == "dev3" else "inhibited")
    plan = fleet.lab.run("sh", "-c", "nixherd plan dev --table 2>/dev/null").output
    assert f"cannot be switched to without a boot: {inhibited}" in plan
    ended, document = fleet.deploy(*before, check=False)
    assert (ended.status, outcomes(document)) == (4, dict.fromkeys(before, "needs a boot")), document
    assert "init: " in document["hosts"][2]["why"]
    assert f"{inhibited}; nothing was changed: deploy it with --reboot" in document["hosts"][0]["why"]
    assert {host: fleet.machine(host) for host in before} == before
    # the machine says it, too, where nobody has foreseen it
    system = document["hosts"][0]["new"]
    words = ("-y", "inventory.py", "--limit", "dev", "operations.nixos.activated", f"system={system}")
    output = fleet.lab.pyinfra(*words, check=False)
    assert f"it cannot be switched to while the old system runs: {inhibited}" in output.output
    assert fleet.machine("dev") == before["dev"]
    # all the same, where that is said; going back over it is not asked
    ended, document = fleet.deploy("dev", "--no-check")
    assert outcomes(document) == {"dev": "deployed"}
    assert fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output == boots["dev"]
    ended, document = fleet.deploy("dev2", "--reboot")
    assert outcomes(document) == {"dev2": "deployed"}
    now = fleet.machine("dev2")
    assert now.current == now.profile == document["hosts"][0]["new"]
    assert fleet.on("dev2", "cat /proc/sys/kernel/random/boot_id").output != boots["dev2"]
    # back again, by a system that fails
    fleet.lab("break", "dev", "activation-fails")
    ended, document = fleet.deploy("dev", "--no-check", *DEADLINES, check=False)
    assert outcomes(document) == {"dev": "rolled back"}, document
    assert "the activation ended with status 2" in document["hosts"][0]["why"]
    fleet.lab("break", "dev", "inhibited", "check-fails")
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev": "failed"}), document
    assert "the new system says no before it is switched to (fault)" in document["hosts"][0]["why"]
    for host in before:
        fleet.lab("break", host)
    fleet.deploy("dev", "dev2", "--no-check")


# Another version


@in_lab
def test_a_machine_of_the_version_before_is_updated_by_an_ordinary_deployment(fleet: Fleet) -> None:  # noqa: F811
    key = (fleet.lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()
    secret, public = signing_key(fleet.lab)
    sign = ("--data", f"sign_with={secret}")
    access = f'nixherd.trustedKeys = ["{public}"]; nixherd.access = {{ kind = "push-closure"; keys = ["{key}"]; }};'
    modules = fleet.lab.places.fleet / "modules/nixos"
    parts = {name: (modules / name).read_text() for name in activation.PARTS}
    fleet.broken_by("dev3", f"{{ {access} }}")
    for name in parts:
        (modules / name).write_text("")
    (modules / "machine.sh").write_text(
        "".join(part.read_text() for part in sorted((HERE / "machine-v2").glob("*.sh")))
    )
    fleet.commit()
    fleet.deploy("dev3")
    assert "protocol=2" in fleet.on("root@dev3", "nixherd last").output
    for name, text in parts.items():
        (modules / name).write_text(text)
    with order(fleet, dev3='access = "push-closure";'):
        fleet.change("dev3", "updated")
        ended, document = fleet.deploy("dev3", *sign, check=False)
        assert (ended.status, outcomes(document)) == (0, {"dev3": "deployed"}), document
        now = fleet.machine("dev3")
        assert now.marker == "updated"
        output = fleet.on("root@dev3", "nixherd last").output
        assert "protocol=3" in output
        assert f"noted={now.current} {document['hosts'][0]['revision']} " in output
        assert document["hosts"][0]["noted"] == document["hosts"][0]["revision"]
        assert outcomes(fleet.deploy("dev3", *sign)[1]) == {"dev3": "unchanged"}
        fleet.commit()  # of the same system
        assert outcomes(fleet.deploy("dev3", *sign)[1]) == {"dev3": "revision only"}
        assert (fleet.noted("dev3")[1], fleet.machine("dev3")) == (fleet.head, now)
        # whoever speaks another version is told what to update
        v2 = f"nixherd begin 2 x me switch {now.current} - 8 8 - - -"
        output = fleet.on("root@dev3", v2, check=False).output
        assert "refused=" in output
        assert "update nixherd on the controller" in output
        fleet.change("dev3", "and again")
        assert outcomes(fleet.deploy("dev3", *sign)[1]) == {"dev3": "deployed"}
    fleet.lab("break", "dev3")
    fleet.deploy("dev3")


# Pieces, each by itself


SYSTEM = f"/nix/store/{'a' * 32}-nixos-system-dev-26.05"
REVISION = "4f2c0d9b7e6a000000000000000000000000c0de"
OTHER = f"/nix/store/{'b' * 32}-nixos-system-dev-25.11"


def deployment(**changes: Any) -> Deployment:
    usual: dict[str, Any] = {"id": "20261128T2000-1", "who": "admin@laptop-1", "goal": Goal.SWITCH, "system": SYSTEM}
    usual |= {"specialisation": None, "deadline": 1, "confirm": 1}
    return Deployment(**{**usual, **changes})


@pytest.mark.parametrize(
    ("running", "coming", "found"),
    [
        ('{"bus": "dbus", "init": "x"}', '{"bus": "broker", "init": "x"}', ("bus: dbus → broker",)),
        ('{"bus": "dbus"}', '{"kernel": "new"}', ()),
        ('{"bus": "dbus"}', None, ()),
        ("no JSON", '{"bus": "broker"}', ()),
        ("[1]", "[2]", ()),
    ],
)
def test_inhibitors_are_compared_as_nixpkgs_does(running: str, coming: str | None, found: tuple[str, ...]) -> None:
    assert inhibitors_between({INHIBITORS: running}, {INHIBITORS: coming}) == found


def test_another_interface_of_init_needs_a_boot_too() -> None:
    assert inhibitors_between({INIT: "systemd 1"}, {INIT: "systemd 2\n"}) == ("init: systemd 1 → systemd 2",)
    assert (
        inhibitors_between({INIT: "systemd 1"}, {INIT: "systemd 1\n"})
        == inhibitors_between({INIT: None}, {INIT: "x"})
        == ()
    )


@pytest.mark.parametrize("version", ["2", "3"])
def test_the_versions_that_are_spoken(version: str) -> None:
    assert parse(f"protocol={version}\nstate=kept").protocol == int(version)
    output = deployment(gated=True, reboot=True, protocol=int(version), revision=REVISION).begin[0].split()
    assert output[:4] == ["nixherd", "begin", version, "20261128T2000-1"]
    assert output[-3:] == (["-", "reboot", "-"] if version == "2" else ["reboot", "-", REVISION])


@pytest.mark.parametrize(
    ("version", "message"),
    [("4", "update nixherd here"), ("1", "update its modules first, by `nixos-rebuild switch"), ("x", "its modules")],
)
def test_another_version_is_refused_with_what_to_update(version: str, message: str) -> None:
    for answer in ("state=kept", "refused=no"):
        with pytest.raises(FleetError, match=message):
            parse(f"protocol={version}\n{answer}")


def test_the_first_version_did_not_say_which_one_it_speaks() -> None:
    with pytest.raises(FleetError, match="speaks version 1 of the protocol"):
        parse("state=kept")


def test_a_program_refuses_what_is_said_in_another_version(tmp_path: Path) -> None:
    (tmp_path / "program").write_text(deployment().begin[1])
    output = subprocess.run(
        ["sh", tmp_path / "program", "home", "begin", "x", "me", "switch", SYSTEM, "-", "8", "8", "-"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert parse(output).stage is Stage.REFUSED
    assert "update nixherd on the controller" in output


def test_the_fleets_modules_are_what_is_sent() -> None:
    modules = Path(activation.__file__).parents[2] / "fleet/modules/nixos"
    listed = re.findall(r"\./([\w-]+\.sh)", (modules / "program.nix").read_text())
    assert "".join((modules / name).read_text() for name in listed) == deployment().begin[1]


SYSTEMCTL = r"""#!/bin/sh
# `systemctl show -p NAME… --value -- UNIT`, from a file for each unit
for unit; do :; done
names=
while [ $# -gt 1 ]; do
    [ "$1" != -p ] || { names="$names $2"; shift; }
    shift
done
for name in $names; do sed -n "s/^$name=//p" "$UNITS/$unit" 2>/dev/null; done
"""

UNITS = {
    # name: (its properties, whether its failure counts)
    "sshd.service": ("WantedBy=multi-user.target", True),
    "ran.service": ("TriggeredBy=ran.timer", True),  # it runs already
    "new.service": ("WantedBy=fresh.target", True),
    "fresh.target": ("WantedBy=multi-user.target", True),
    "by-hand.service": ("", True),  # nobody knows who started it
    "user@1000.service": ("WantedBy=multi-user.target", False),
    "session-3.scope": ("Transient=yes", False),
    "run-u12.service": ("Transient=yes", False),
    "caller@3-10.0.0.1:22-10.0.0.2:999.service": ("", False),
    "getty@tty1.service": ("WantedBy=getty.target", True),
    "getty.target": ("WantedBy=multi-user.target", True),
    "backup.service": ("TriggeredBy=backup.timer", False),
    "backup-part.service": ("WantedBy=backup.service", False),
    "backup-failed.service": ("OnFailureOf=backup.service", False),
    "round.service": ("RequiredBy=trip.service\nTriggeredBy=round.timer", False),
    "trip.service": ("RequiredBy=round.service", False),
    "mail.service": ("TriggeredBy=mail.socket", False),
    "timedated.service": ("BusName=org.freedesktop.timedate1", False),
    "share.mount": ("TriggeredBy=share.automount", False),
    "rebuilt.service": ("TriggeredBy=rebuilt.timer\nWantedBy=multi-user.target", True),
}


def test_whose_failure_counts(tmp_path: Path) -> None:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    for name, (text, _) in UNITS.items():
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "caller.socket").write_text("Accept=yes\n")
    (tmp_path / "getty.socket").write_text("")
    names = "\n".join(UNITS)
    script = f"{activation.part('units.sh')}\nkind=system\nrunning='multi-user.target\nran.service'\n"
    script += f"echo '{names}' | that_count; echo; echo '{names}' | that_do_not"
    done = subprocess.run(
        ["sh", "-u", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "UNITS": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    count, aside = (part.split() for part in done.stdout.split("\n\n"))
    assert done.stderr == ""
    assert set(count) == {name for name, (_, counts) in UNITS.items() if counts}
    assert sorted(count + aside) == sorted(UNITS)


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="it mounts a file system of a few pages")
def test_a_deadline_needs_no_file(tmp_path: Path) -> None:
    """The new home is there, all room for a word is gone, and nobody says one: what was there before is there again."""
    home, state = tmp_path, tmp_path / ".local/state"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    directory = state / f"nixherd/deploy-{boot}/one"
    profile = state / "nix/profiles/home-manager"
    for name in ("old", "new"):
        (home / name).mkdir()
        fill = f"cat /dev/zero >{directory}/filler 2>/dev/null" if name == "new" else ":"
        (home / name / "activate").write_text(f"#!/bin/sh\nln -sfn {home / name} {profile}\n{fill}\nexit 0\n")
        (home / name / "activate").chmod(0o755)
    profile.parent.mkdir(parents=True)
    profile.symlink_to(home / "old")
    (state / "nixherd").mkdir()
    settings = f"who=me goal=switch new={home}/new target={home}/new old={home}/old deadline=5 confirm=1 "
    settings += f"generation= before={home}/old newest=0"
    begin = f"""
        mount -t tmpfs -o size=128k tmpfs {state}/nixherd
        mkdir -p {directory}
        cat >{directory}/program
        echo '{settings}' >{directory}/settings
        echo armed >{directory}/state
        timeout 20 sh {directory}/program home watch one
        cat {directory}/state
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", begin],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        input=deployment().begin[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert profile.readlink() == home / "old"
    assert done.stdout.split()[-1] == "reverted", done


def rolled_out(journal: Journal) -> tuple[Rollout, HostRun]:
    """A rollout of `dev`, whose machine is not asked anything."""
    host = replace(HOST, id="dev")
    host_run = HostRun(host, Options(), cast(Machine, None), journal, FLEET.path, lambda: None)
    return Rollout("one", journal, ("dev",), {"dev": host_run}), host_run


def test_an_unexpected_exception_is_reported_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    journal = Journal(tmp_path / "run")
    rollout, host_run = rolled_out(journal)
    journal.note("run", hosts=["dev"])
    host_run.enter("activate")
    expected = pytest.raises(Undecided, match=r"^dev: activate: TypeError: object of type 'Host' has no len.* mistake")
    with expected, rollout.turn(host_run, "dev"):
        raise TypeError("object of type 'Host' has no len()")
    journal.close()
    [row] = report(entries(tmp_path / "run")).hosts
    assert (row.outcome, row.exit) == (Outcome.UNKNOWN, Exit.UNKNOWN)
    assert "activate: TypeError: object of type" in str(row.why)
    assert "decides by itself" not in str(row.why)
    assert "test_machine.py" in (tmp_path / "nixherd" / "faults.log").read_text()
    assert rollout.failed == {"dev": 1}


BEFORE = Running(OTHER, OTHER, "dev", "1")
NOW = Running(SYSTEM, SYSTEM, "dev", "1")
FOUR = ProcessFailed("nixos-rebuild: ended with status 4", 4)


@pytest.mark.parametrize(
    ("now", "failure", "outcome", "error"),
    [
        (NOW, None, "deployed", None),
        (NOW, FOUR, "deployed, not well", "it runs .*26.05 all the same, and nothing goes back"),
        (replace(NOW, unwell=("x.service",)), None, "deployed, not well", "units fail: x.service"),
        (BEFORE, FOUR, None, "it runs and boots what it did before"),
        (replace(NOW, current=OTHER), FOUR, None, "what is there is .*25.11.* its profile leads to .*26.05"),
        (BEFORE, None, None, "ended well, but what is there is"),
        (replace(NOW, profile=OTHER), None, "deployed", None),
    ],
)
def test_nixos_rebuild_is_judged_by_what_is_read_back(
    now: Running, failure: ProcessFailed | None, outcome: str | None, error: str | None, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "run")
    _, host_run = rolled_out(journal)
    expected = pytest.raises(FleetError, match=error) if error else nullcontext()
    with expected as raised:
        judge(host_run, BEFORE, now, SYSTEM, "switch", failure)
    journal.close()
    assert host_run.outcome == outcome
    if raised is not None:
        assert isinstance(raised.value, NotBegun) == (now is BEFORE and failure is not None)
    moved = [entry for entry in entries(tmp_path / "run") if "profile_moved" in entry]
    assert bool(moved) == (outcome == "deployed" and now.profile == OTHER)
