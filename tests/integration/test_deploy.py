"""Deployments in the lab: whatever the new system breaks, each machine ends on it, proven, or on the one of before.

What runs on a machine is read by OpenSSH, with its pinned key, past the code under test.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.lab_driver import Ended, Lab, edit, until
from tests.integration.test_secrets import files_with, pattern, watched
from tests.integration.verified import report

pytestmark = pytest.mark.slow

DEADLINES = ("--activation-deadline", "8", "--confirm-deadline", "10")
MEND = (
    "sudo sh -c 'rm -rf /var/fault; findmnt -no FSTYPE /boot | grep -q tmpfs && umount /boot; "
    "systemctl reset-failed; true'"
)
# What each fault is told as, and how many seconds its machine needs at most until it is on the old system again.
FAULTS = {
    "activation-fails": ("the activation ended with status 2", 15),
    "activation-hangs": ("the activation did not end within 8 s", 25),
    "boot-full": ("the boot entry cannot be written: Failed to install bootloader", 20),
    "disk-full": ("the profile cannot be set: ", 20),
    "needs-boot": ("deploy it with goal=boot and reboot", 15),
    "network-gone": ("nobody confirmed it within 10 s", 40),
    "oneshot-hangs": ("the activation did not end within 8 s; it waits for fault.service", 40),
    "reboots": ("it rebooted in the middle of the activation", 30),
    "sshd-broken": ("units failed: sshd.service", 20),
    "sshd-elsewhere": ("nobody confirmed it within 10 s", 40),
    "unit-fails": ("units failed: fault.service", 20),
    "wrong-host": ("hostname is somebody-else, not dev", 20),
}


@dataclass(frozen=True)
class Machine:
    """What a machine says when it is asked past our code. Store paths; `default` is the boot entry's generation."""

    current: str
    profile: str
    default: str
    marker: str


@dataclass(frozen=True)
class Fleet:
    """Provisioned machines of the lab's fleet."""

    lab: Lab

    def deploy(self, *words: str, check: bool = True) -> tuple[Ended, dict[str, Any]]:
        return run_deploy(self.lab, *words, check=check)

    def change(self, host: str, text: str) -> None:
        """Give the host's next system this content of /etc/marker, and commit that."""
        directory = self.lab.places.fleet / "hosts" / host
        configuration = directory / "configuration.nix"
        if "marker" not in configuration.read_text():
            edit(
                configuration, "system.stateVersion", "environment.etc.marker.source = ./marker;\n  system.stateVersion"
            )
        (directory / "marker").write_text(text)
        self.commit()

    def commit(self) -> None:
        self.lab.run("sh", "-c", 'cd "$FLEET" && git add -A && git commit -q --no-verify --allow-empty -m change')

    def on(self, host: str, command: str, check: bool = True) -> Ended:
        address, known = report(self.lab, host)["address"], self.lab.state / f"known-{host}"
        known.write_text(f"{address} {report(self.lab, host)['host_key']}\n")
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        return self.lab.run("ssh", *options, "-o", "ConnectTimeout=5", f"abl030@{address}", command, check=check)

    def machine(self, host: str) -> Machine:
        said = self.on(
            host,
            "readlink -f /run/current-system; readlink -f /nix/var/nix/profiles/system; "
            "sudo sed -n 's/^default //p' /boot/loader/loader.conf || true; echo; cat /etc/marker 2>/dev/null || echo",
        ).output.splitlines()
        current, profile, *rest = [line for line in said if line]
        return Machine(current, profile, rest[0] if rest else "", rest[1] if len(rest) > 1 else "")


def run_deploy(lab: Lab, *words: str, check: bool = True) -> tuple[Ended, dict[str, Any]]:
    """`fleetwright deploy`, and its document."""
    ended = lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', "fleetwright", "deploy", *words, check=check)
    return ended, json.loads(ended.output)


@pytest.fixture(scope="module")
def made(running_lab: Lab) -> Lab:
    running_lab("reset")
    deploys = ("deploys/enroll.py", "deploys/provision.py")
    running_lab.pyinfra("-y", "inventory.py", *deploys, "--limit", "dev", "--limit", "dev2", "--limit", "dev3")
    return running_lab


@pytest.fixture
def fleet(made: Lab) -> Iterator[Fleet]:
    fleet = Fleet(made)
    yield fleet
    made("break", "dev")
    until(lambda: fleet.on("dev", MEND, check=False).status == 0, 60, "dev answers")


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["outcome"] for host in document["hosts"]}


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
        assert row["revision"] == fleet.lab.run("sh", "-c", "git -C $FLEET rev-parse HEAD").output.strip()
    ended, document = fleet.deploy("dev", "dev2", "dev3")
    assert (ended.status, outcomes(document)) == (0, dict.fromkeys(before, "unchanged"))
    assert {row["stage"] for row in document["hosts"]} == {"evaluate"}


def test_the_plan_copies_and_activates_nothing(fleet: Fleet) -> None:
    fleet.change("dev", "planned")
    before = fleet.machine("dev")
    said = fleet.lab.run("sh", "-c", "fleetwright plan dev --table 2>/dev/null").output
    assert "dev  planned" in said
    assert "closure " in said
    assert "needs a reboot: no" in said
    ended = fleet.lab.run("sh", "-c", "fleetwright plan dev --json 2>/dev/null")
    [row] = json.loads(ended.output)["hosts"]
    assert fleet.on("dev", f"test -e {row['new']}", check=False).status == 1
    assert fleet.machine("dev") == before


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_system_ends_on_the_one_of_before_and_the_others_are_deployed(fleet: Fleet, fault: str) -> None:
    said, seconds = FAULTS[fault]
    before = fleet.machine("dev")
    fleet.change("dev2", fault)
    fleet.lab("break", "dev", fault)
    ended, document = fleet.deploy("dev", "dev2", *DEADLINES, check=False)
    assert (ended.status, outcomes(document)) == (1, {"dev": "rolled back", "dev2": "deployed"}), document
    [row] = [row for row in document["hosts"] if row["host"] == "dev"]
    assert said in row["why"], row
    assert row["seconds"] < seconds
    fleet.on("dev", MEND)
    now = fleet.machine("dev")
    assert (now.current, now.profile, now.marker) == (before.current, before.profile, before.marker)
    assert fleet.machine("dev2").marker == fault


def test_sessions_that_the_activation_ends_stop_nothing(fleet: Fleet) -> None:
    fleet.lab("break", "dev", "session-killed")
    ended, document = fleet.deploy("dev", *DEADLINES)
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    now = fleet.machine("dev")
    assert now.current == now.profile == document["hosts"][0]["new"]


@pytest.mark.parametrize("stage", ["evaluate", "copy", "activate", "prove", "keep"])
def test_a_killed_run_leaves_one_system_or_the_other_and_the_next_one_converges(fleet: Fleet, stage: str) -> None:
    fleet.change("dev", f"killed at {stage}")
    before = fleet.machine("dev")
    with fleet.lab.under_way("fleetwright", "deploy", "dev", *DEADLINES) as run:
        run.until(lambda line: line.startswith(f"dev: {stage}"))
    until(lambda: not _under_way(fleet), 40, "the machine decides")
    now = fleet.machine("dev")
    assert now.current in (before.current, now.profile)
    assert (now.current == before.current) == (now.profile == before.profile)
    ended, document = fleet.deploy("dev")
    assert (ended.status, outcomes(document)["dev"]) in ((0, "deployed"), (0, "unchanged"))
    assert fleet.machine("dev").marker == f"killed at {stage}"


def _under_way(fleet: Fleet) -> bool:
    state = "sudo sh -c 'cat /run/fleetwright/deploy/current/state'"
    return fleet.on("dev", state, check=False).output.strip() in (
        "armed",
        "activating",
        "proving",
        "keeping",
        "reverting",
    )


def test_two_operators_do_not_meet(fleet: Fleet) -> None:
    fleet.lab("break", "dev", "activation-hangs")
    with fleet.lab.under_way("fleetwright", "deploy", "dev", *DEADLINES) as run:
        run.until(lambda line: line.startswith("dev: activate"))
        until(lambda: _under_way(fleet), 10, "the first one is at work")
        elsewhere = {"XDG_STATE_HOME": str(fleet.lab.state / "elsewhere")}
        ended = fleet.lab.run("fleetwright", "deploy", "dev", "--table", check=False, env=elsewhere)
        assert ended.status == 4
        assert "is deploying to it (it is activating); nothing was done" in ended.output
        assert run.end().status == 1


def test_what_is_not_committed_is_not_deployed_unless_said(fleet: Fleet) -> None:
    marker: Path = fleet.lab.places.fleet / "hosts/dev/marker"
    fleet.change("dev", "committed")
    marker.write_text("not committed")
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (4, {"dev": "failed"})
    assert "hosts/dev/marker: has changes that are not committed" in document["hosts"][0]["why"]
    ended, document = fleet.deploy("dev", "--allow-dirty")
    assert (ended.status, document["dirty"]) == (0, ["hosts/dev/marker"])
    assert fleet.machine("dev").marker == "not committed"
    fleet.change("dev", "committed again")


def test_who_does_not_answer_stops_nobody(fleet: Fleet) -> None:
    fleet.change("dev2", "without dev3")
    fleet.lab.api_task("/nodes/prom/qemu/112/status/stop")
    try:
        ended, document = fleet.deploy("dev2", "dev3", check=False)
    finally:
        fleet.lab.api_task("/nodes/prom/qemu/112/status/start")
    assert (ended.status, outcomes(document)) == (1, {"dev2": "deployed", "dev3": "unreachable"})
    assert "vm 112 (dev3) is stopped" in next(row["why"] for row in document["hosts"] if row["host"] == "dev3")


def test_a_host_that_cannot_be_evaluated_or_built_fails_alone(fleet: Fleet) -> None:
    fleet.change("dev2", "beside a broken one")
    hosts = fleet.lab.places.fleet / "hosts"
    for text, said in (
        ('{ environment.etc.x.text = throw "no such thing"; }', "no such thing"),
        ('{ system.extraSystemBuilderCmds = "echo it cannot be built; exit 3"; }', "it cannot be built"),
    ):
        fleet.lab("break", "dev", "unit-fails")
        (hosts / "dev/faults/unit-fails.nix").write_text(text + "\n")
        fleet.change("dev2", said)
        ended, document = fleet.deploy("dev", "dev2", check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev": "failed", "dev2": "deployed"}), document
        assert said in document["hosts"][0]["why"]


@pytest.mark.parametrize("goal", ["test", "boot"])
def test_goals(fleet: Fleet, goal: str) -> None:
    fleet.change("dev", f"goal {goal}")
    before = fleet.machine("dev")
    ended, document = fleet.deploy("dev", "--goal", goal)
    now, new = fleet.machine("dev"), document["hosts"][0]["new"]
    if goal == "test":
        assert outcomes(document) == {"dev": "deployed"}
        assert (now.current, now.profile, now.default) == (new, before.profile, before.default)
    else:
        assert outcomes(document) == {"dev": "pending reboot"}
        assert (now.current, now.profile) == (before.current, new)
        assert now.default != before.default
    ended, document = fleet.deploy("dev")
    assert (ended.status, outcomes(document)) == (0, {"dev": "deployed"})
    now = fleet.machine("dev")
    assert now.current == now.profile == new


@contextmanager
def order(fleet: Fleet, **entries: str) -> Iterator[None]:
    """With these attributes in the hosts' entries of hosts.nix."""
    hosts = fleet.lab.places.fleet / "hosts.nix"
    before = hosts.read_text()
    for host, text in entries.items():
        edit(hosts, f'sshAlias = "{host}";', f'sshAlias = "{host}"; {text}')
    fleet.commit()
    yield
    hosts.write_text(before)
    fleet.commit()


def test_a_wave_waits_for_the_proof_of_the_one_before(fleet: Fleet) -> None:
    with order(fleet, dev="canary = true;", dev3="wave = 2;"):
        fleet.lab("break", "dev2", "unit-fails")
        ended, document = fleet.deploy("dev", "dev2", "dev3", *DEADLINES, check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev": "deployed", "dev2": "rolled back", "dev3": "held"})
        assert document["hosts"][2]["why"] == "dev2 failed in a wave before wave 2"
        ended, document = fleet.deploy("dev", "dev2", "dev3", "--max-fail", "40%", *DEADLINES, check=False)
        assert outcomes(document) == {"dev": "unchanged", "dev2": "rolled back", "dev3": "deployed"}
        fleet.lab("break", "dev2")
        ended, document = fleet.deploy("--rerun-failed")
        assert (ended.status, outcomes(document)) == (0, {"dev2": "deployed"})
        said = fleet.lab.run("fleetwright", "deploy", "--rerun-failed").output
        assert "left no host to run again" in said
    refused = fleet.lab.pyinfra("-y", "--serial", "inventory.py", "deploys/deploy.py", "--limit", "dev", check=False)
    assert (refused.status, "--serial: a deployment goes in waves" in refused.output) == (2, True)


def test_a_system_is_kept_once_it_is_healthy(fleet: Fleet) -> None:
    web = "serviceConfig.ExecStart = \"/usr/bin/sh -c 'sleep 2; exec /usr/bin/busybox httpd -f -p 8000 -h /etc'\";"
    checks = """
      port.tcp = 22;
      sshd.unit = "sshd.service";
      root.command = "test $(id -u) = 0";
      web = { http = "http://localhost:8000/hostname"; timeout = 5; };
    """
    fault = fleet.lab.places.fleet / "hosts/dev/faults/unit-fails.nix"
    fleet.lab("break", "dev", "unit-fails")
    fault.write_text(f"{{ fleetwright.healthChecks = {{ {checks} }}; }}")
    fleet.commit()
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (1, {"dev": "rolled back"})
    assert "web (http http://localhost:8000/hostname) does not pass: no connection" in document["hosts"][0]["why"]
    fault.write_text(
        f'{{ fleetwright.healthChecks = {{ {checks} }}; systemd.services.web = {{ wantedBy = ["multi-user.target"]; '
        f"{web} }}; }}"
    )
    fleet.commit()
    ended, document = fleet.deploy("dev")
    assert outcomes(document) == {"dev": "deployed"}
    fault.write_text('{ fleetwright.healthChecks.own = { command = "echo not well; exit 2"; timeout = 1; }; }')
    fleet.commit()
    ended, document = fleet.deploy("dev", check=False)
    assert "own (command echo not well; exit 2) does not pass: it says not well" in document["hosts"][0]["why"]


def test_who_needs_a_reboot_gets_one_and_a_readonly_vm_is_only_listed(fleet: Fleet) -> None:
    for host in ("dev", "dev2", "dev3"):
        fleet.lab("break", host, "unit-fails")
        (fleet.lab.places.fleet / "hosts" / host / "faults/unit-fails.nix").write_text(
            "{pkgs, ...}: { boot.kernelPackages = pkgs.linuxPackages_latest; }" if host != "dev3" else "{ }"
        )
    definitions = fleet.lab.places.fleet / "vms/definitions.nix"
    before = definitions.read_text()
    edit(definitions, "vmid = 111;", "vmid = 111; readonly = true;")
    fleet.commit()
    ended, document = fleet.deploy("dev", "dev2", "dev3")
    rows = {row["host"]: row["reboot_for"] for row in document["hosts"]}
    assert rows == {"dev": ["initrd", "kernel", "kernel-modules"], "dev2": rows["dev"], "dev3": []}
    boots = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in ("dev", "dev2", "dev3")}
    ended = fleet.lab.run("sh", "-c", "fleetwright reboot dev dev2 dev3 --json 2>/dev/null")
    document = json.loads(ended.output)
    assert outcomes(document) == {"dev": "rebooted", "dev2": "left to its owner", "dev3": "unchanged"}
    assert "`ssh dev2 sudo systemctl reboot`" in document["hosts"][1]["why"]
    after = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in boots}
    assert {host for host in boots if boots[host] != after[host]} == {"dev"}
    assert fleet.machine("dev").current == document["hosts"][0]["current"]
    definitions.write_text(before)
    for host in ("dev2", "dev3"):
        fleet.lab("break", host)


def test_generations_are_gone_back_to_and_thrown_away(fleet: Fleet) -> None:
    for text in ("generation a", "generation b"):
        fleet.change("dev", text)
        fleet.deploy("dev")
    before = fleet.machine("dev")
    ad_hoc = ("-y", "inventory.py", "--limit", "dev")
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.rollback")
    now = fleet.machine("dev")
    assert (now.marker, now.current == now.profile, now.default != before.default) == ("generation a", True, True)
    again = fleet.lab.pyinfra(*ad_hoc, "operations.nixos.activated", f"system={now.current}")
    assert "No changes" in again.output
    assert (
        "there is no generation 99"
        in fleet.lab.pyinfra(*ad_hoc, "operations.nixos.rollback", "generation=99", check=False).output
    )
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.activated", f"system={before.current}", "goal=test")
    assert (fleet.machine("dev").current, fleet.machine("dev").profile) == (before.current, now.profile)
    for number, days in ((1, 50), (2, 40)):  # the one that was there 30 days ago is kept
        fleet.on("dev", f"sudo touch -h -d '{days} days ago' /nix/var/nix/profiles/system-{number}-link")
    fleet.lab.pyinfra(*ad_hoc, "operations.nixos.gc", "older_than=30d")
    assert "system-1-link" not in fleet.on("dev", "ls /nix/var/nix/profiles").output
    assert fleet.machine("dev").profile == now.profile


REBUILD = """#!/bin/sh
# What nixos-rebuild does, step by step, and what it was told.
case "$*" in --help) echo "usage: nixos-rebuild [--no-reexec] [--sudo]"; exit ;; esac
printf '%s\\n' "$@" >>"$RECORD"
action=$1 flake=${3%#*} host=${3#*#} target=$6
set -e
system=$(nix build --no-link --print-out-paths "$flake#nixosConfigurations.$host.config.system.build.toplevel")
nix copy --no-check-sigs --to "ssh://$target" "$system"
ssh $NIX_SSHOPTS "$target" sudo nix-env -p /nix/var/nix/profiles/system --set "$system"
ssh $NIX_SSHOPTS "$target" sudo "$system/bin/switch-to-configuration" "$action"
"""


def test_upstreams_own_command_is_one_switch_away(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "nixos-rebuild").write_text(REBUILD)
    (tmp_path / "nixos-rebuild").chmod(0o755)
    fleet.change("dev", "by nixos-rebuild")
    command = f"PATH={tmp_path}:$PATH exec fleetwright deploy dev --data engine=nixos-rebuild --json 2>/dev/null"
    ended = fleet.lab.run("env", f"RECORD={tmp_path / 'argv'}", "sh", "-c", command)
    assert outcomes(json.loads(ended.output)) == {"dev": "deployed"}
    argv = (tmp_path / "argv").read_text().splitlines()
    address = report(fleet.lab, "dev")["address"]
    assert argv == [
        *("switch", "--flake", f"{fleet.lab.places.fleet}#dev", "--no-reexec", "--target-host", f"abl030@{address}"),
        "--sudo",
    ]
    assert fleet.machine("dev").marker == "by nixos-rebuild"


def test_any_flake_reference_without_a_checkout(fleet: Fleet) -> None:
    fleet.change("dev", "by reference")
    revision = fleet.lab.run("sh", "-c", "git -C $FLEET rev-parse HEAD").output.strip()
    (fleet.lab.places.fleet / "hosts/dev/marker").write_text("not committed")
    _ended, document = fleet.deploy("--flake", f"git+file://{fleet.lab.places.fleet}?ref=main#dev")
    assert outcomes(document) == {"dev": "deployed"}
    assert document["flake"].endswith(f"&rev={revision}")
    assert document["hosts"][0]["revision"] == revision
    assert fleet.machine("dev").marker == "by reference"
    fleet.commit()


def test_sudo_with_a_password_from_stdin(fleet: Fleet) -> None:
    """The password is given for a machine that begins to ask for it, and is nowhere but on stdin."""
    word = secrets.token_hex(12)
    fleet.on("dev3", f"printf abl030:{word} | sudo chpasswd")
    fault = fleet.lab.places.fleet / "hosts/dev3/faults/unit-fails.nix"
    fleet.lab("break", "dev3", "unit-fails")
    fault.write_text("{lib, ...}: { security.sudo.wheelNeedsPassword = lib.mkForce true; }")
    fleet.commit()
    ended, document = fleet.deploy("dev3", *DEADLINES, check=False)
    assert outcomes(document) == {"dev3": "rolled back"}
    assert "sudo: a password is required" in document["hosts"][0]["why"]
    given = fleet.lab.state / "word"
    given.write_text(f"{word}\n")
    command = f"fleetwright deploy dev3 --json --ask-sudo-password <{given} 2>/dev/null"
    with watched(pattern(word.encode())) as seen:
        ended = fleet.lab.run("sh", "-c", command)
        assert outcomes(json.loads(ended.output)) == {"dev3": "deployed"}
        ended, document = fleet.deploy("dev3", check=False)
        assert (ended.status, outcomes(document)) == (4, {"dev3": "failed"})
        assert "dev3: sudo asks for a password there" in document["hosts"][0]["why"]
        fleet.lab("break", "dev3")
        assert outcomes(json.loads(fleet.lab.run("sh", "-c", command).output)) == {"dev3": "deployed"}
    assert seen == set()
    given.unlink()
    assert files_with(pattern(word.encode()), fleet.lab.state / "home") == set()
    fleet.on("dev3", "sudo -n true")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--goal", "nothing"), "'nothing' is not one of 'switch', 'boot', 'test', 'dry-activate'"),
        (("--soak", "500"), "soak=500 leaves no time to confirm: confirm_deadline=120 has to be longer"),
        (("--activation-deadline", "-1"), "activation_deadline=-1 is no number of seconds"),
        (("--goal", "boot", "--specialisation", "x"), "specialisation=x: with goal=boot it is chosen at the boot"),
        (("--exclude", "dev"), "no host is left to work on"),
        (("nosuch",), "--limit nosuch: no host or group has this name"),
    ],
)
def test_wrong_input_is_said_and_nothing_is_done(fleet: Fleet, words: tuple[str, ...], said: str) -> None:
    ended = fleet.lab.run("fleetwright", "deploy", "dev", *words, "--table", check=False)
    assert ended.status == 2, ended.output
    assert said in ended.output
    assert "Traceback" not in ended.output
