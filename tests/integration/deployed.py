"""Provisioned machines of the lab to deploy to, and what they say when they are asked past the code under test."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.lab_driver import Ended, Lab, edit, until
from tests.integration.verified import report

DEADLINES = ("--activation-deadline", "8", "--confirm-deadline", "10")
NO_TOKEN = {"PROXMOX_TOKEN_FILE": "/nonexistent"}
MEND = (
    "sudo sh -c 'rm -rf /var/fault; findmnt -no FSTYPE /boot | grep -q tmpfs && umount /boot; "
    "umount /usr/bin/systemd-run 2>/dev/null; "
    "systemctl unset-environment LD_PRELOAD FAKETIME; systemctl reset-failed; true'"
)


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

    def broken_by(self, host: str, module: str) -> None:
        """Give the host's next system this module, until `lab break HOST` takes it away again."""
        self.lab("break", host, "unit-fails")
        (self.lab.places.fleet / "hosts" / host / "faults/unit-fails.nix").write_text(module + "\n")
        self.commit()

    def on(self, host: str, command: str, check: bool = True, stdin: Path = Path(os.devnull)) -> Ended:
        """A command there over OpenSSH, as its user or as USER@HOST."""
        user, _, host = host.rpartition("@")
        address, known = report(self.lab, host)["address"], self.lab.state / f"known-{host}"
        known.write_text(f"{address} {report(self.lab, host)['host_key']}\n")
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        options += ["-o", "ConnectTimeout=5"]
        ssh = shlex.join(["ssh", *options, f"{user or 'abl030'}@{address}", command])
        return self.lab.run("sh", "-c", f"{ssh} <{stdin}", check=check)

    def noted(self, host: str) -> list[str]:
        """What it notes of what runs there, word by word."""
        command = 'grep -F "$(readlink -f /run/current-system) " /var/lib/nixherd/revisions'
        return self.on(host, command, check=False).output.split()

    @property
    def head(self) -> str:
        return self.lab.run("sh", "-c", "git -C $FLEET rev-parse HEAD").output.strip()

    def machine(self, host: str) -> Machine:
        output = self.on(
            host,
            "readlink -f /run/current-system; readlink -f /nix/var/nix/profiles/system; "
            "sudo sed -n 's/^default //p' /boot/loader/loader.conf || true; echo; cat /etc/marker 2>/dev/null || echo",
        ).output.splitlines()
        current, profile, *rest = [line for line in output if line]
        return Machine(current, profile, rest[0] if rest else "", rest[1] if len(rest) > 1 else "")


def run_deploy(lab: Lab, *words: str, check: bool = True) -> tuple[Ended, dict[str, Any]]:
    """`nixherd deploy`, and its document."""
    ended = lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', "nixherd", "deploy", *words, check=check)
    return ended, json.loads(ended.output)


AS_PROVISIONED = "refs/tests/provisioned"  # in the fleet's repository, which a reset of the lab makes anew
OURS = ("dev", "dev2", "dev3")


@pytest.fixture(scope="module")
def made(running_lab: Lab) -> Lab:
    """The fleet with its three machines as provisioned: those of the module before, brought back to what they were."""
    if not _brought_back(running_lab):
        running_lab("reset")
        limits = [word for host in OURS for word in ("--limit", host)]
        # as one command, and by a deploy file of the operator's own: the machines are not there when it begins
        deploy_file = running_lab.state / "own.py"
        names = ("enroll", "provision", "deploy")
        deploy_file.write_text(
            "\n".join(["from pyinfra import local", *(f"local.include('deploys/{name}.py')" for name in names)])
        )
        running_lab.pyinfra("-y", "inventory.py", str(deploy_file), *limits)
        running_lab.run("sh", "-c", f'git -C "$FLEET" update-ref {AS_PROVISIONED} HEAD')
    return running_lab


def _brought_back(lab: Lab) -> bool:
    restore = f"git reset -q --hard {AS_PROVISIONED} && git clean -fdq"
    if lab.run("sh", "-c", f'cd "$FLEET" && {restore}', check=False).status != 0:
        return False
    _ended, document = run_deploy(lab, *OURS, check=False)
    return set(outcomes(document).values()) <= {"deployed", "unchanged", "revision only"}


@pytest.fixture
def fleet(made: Lab) -> Iterator[Fleet]:
    fleet = Fleet(made)
    yield fleet
    made("break", "dev")
    until(lambda: fleet.on("dev", MEND, check=False).status == 0, 60, "dev answers")


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["outcome"] for host in document["hosts"]}


@contextmanager
def readonly(fleet: Fleet, vmid: int) -> Iterator[None]:
    """With this guest readonly in the definitions."""
    definitions = fleet.lab.places.fleet / "vms/definitions.nix"
    before = definitions.read_text()
    edit(definitions, f"vmid = {vmid};", f"vmid = {vmid}; readonly = true;")
    fleet.commit()
    try:
        yield
    finally:
        definitions.write_text(before)
        fleet.commit()


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


def signing_key(lab: Lab) -> tuple[Path, str]:
    """A key that signs closures, made anew: its file, and the public half."""
    key = lab.state / "signing-key"
    make = f"umask 077; nix key generate-secret --key-name lab-1 >{key} && nix key convert-secret-to-public <{key}"
    return key, lab.run("sh", "-c", make).output.split()[-1]
