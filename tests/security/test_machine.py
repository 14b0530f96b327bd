"""What a machine's guard makes of what happens around it: no room, failures of others, other versions, other tools.

What runs on a machine is read by OpenSSH, with its pinned key, past the code under test.
"""

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy import protocol as activation
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

HERE = Path(__file__).parent
LAB = [pytest.mark.slow, pytest.mark.lab]
ROOM = "sudo sh -c 'systemctl stop filler fault; rm -f /run/fault; systemctl reset-failed; true'"


def in_lab(test: Any) -> Any:
    for mark in LAB:
        test = mark(test)
    return test


def rows(document: dict[str, Any]) -> dict[str, Any]:
    return {row["host"]: row for row in document["hosts"]}


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
