"""The lab's commands, as people and scripts call them, in a checkout of their own beside whatever else runs."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli
from lab.control import Running, cgroups, leftovers
from lab.places import Places
from tests.lab.conftest import CHECKOUT, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]


class Lab:
    """A copy of what the lab consists of, and its command."""

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory)
        for part in ("lab", "fleet"):
            shutil.copytree(CHECKOUT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python -m lab …` in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            cwd=self.places.checkout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def traces(self) -> list[str]:
        """Processes that run in or for this checkout, loop devices on its disks."""
        found = leftovers(self.places)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(self.places.checkout):
                    found.append(f"{process.name} {(process / 'cmdline').read_text()}")
        return found + [
            line for line in Path("/proc/mounts").read_text().splitlines() if str(self.places.checkout) in line
        ]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "checkout")
    yield made
    made("down")
    shutil.rmtree(made.places.checkout)


def test_commands_run_inside_with_the_labs_fleet_token_and_home(lab: Lab) -> None:
    assert lab("up").returncode == 0
    output = lab("run", "--", "sh", "-c", "echo $FLEET $PROXMOX_TOKEN_FILE $HOME; pwd; ip -o -4 addr; exit 7")
    here = lab.places.state
    assert output.stdout.splitlines()[0] == f"{here}/fleet {here}/token {here}/home"
    assert output.stdout.splitlines()[1] == str(lab.places.checkout)
    assert {line.split()[1] for line in output.stdout.splitlines()[2:]} == {"lo", "br0"}
    assert output.returncode == 7
    assert lab.places.token.stat().st_mode & 0o777 == 0o600
    outside = lab("run", "--", "ping", "-c", "1", "-W", "1", "192.0.2.1") if shutil.which("ping") else None
    assert outside is None or outside.returncode != 0


def test_up_twice_is_up_once_and_status_lists_the_node(lab: Lab) -> None:
    assert lab("status").returncode == 3
    assert lab("up").returncode == 0
    first = Running.find(lab.places)
    assert lab("up").returncode == 0
    assert Running.find(lab.places) == first
    output = lab("status").stdout
    assert "104  running  doc1" in output
    assert "9002  stopped" in output
    assert "lab is up with 1 host" in lab("up", "--hosts", "2").stderr


def test_reset_brings_back_start_state_and_fleet_within_three_seconds(lab: Lab) -> None:
    lab("up")
    fleet = lab.places.fleet
    definitions = (fleet / "vms/definitions.nix").read_text()
    stand_in = lab.places.state / "fleet-inputs/nixpkgs/flake.nix"

    def git(*words: str) -> str:
        argv: list[str | Path] = ["git", "-C", fleet, "-c", "user.name=x", "-c", "user.email=x", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    head, shown = git("rev-parse", "HEAD"), stand_in.read_text()
    (fleet / "vms/definitions.nix").write_text("{ }")
    git("commit", "--quiet", "--no-verify", "--all", "--message", "of somebody")
    stand_in.write_text("{ }")
    (lab.places.home / ".local/state").mkdir(parents=True)
    token = lab.places.token_line()
    clone = "https://10.77.0.1:8006/api2/json/nodes/prom/qemu/9002/clone"
    flags = ["-sk", "-H", f"Authorization: PVEAPIToken={token}", "-d", "newid=110", "-d", "name=dev"]
    assert "UPID" in lab("run", "--", "curl", *flags, clone).stdout
    until(lambda: "110  stopped  dev" in lab("status").stdout)
    assert json.loads(lab("log").stdout.splitlines()[0])["path"] == "/nodes/prom/qemu/9002/clone"
    began = time.monotonic()
    assert lab("reset").returncode == 0
    assert time.monotonic() - began < 20
    assert "dev" not in lab("status").stdout
    assert (fleet / "vms/definitions.nix").read_text() == definitions
    assert git("rev-parse", "HEAD") == head, "what was made once is put back"
    assert (git("status", "--porcelain"), stand_in.read_text()) == ("", shown)
    assert not (lab.places.home / ".local").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["reset"], "lab: the lab is not up; start it with: python -m lab up"),
        (["run", "--", "true"], "lab: the lab is not up; start it with: python -m lab up"),
        (["run"], "lab: no command; use: python -m lab run -- CMD …"),
        (["fault", "nosuch"], "lab: unknown fault nosuch; known faults: lock-held,"),
        (["fault", "no-return", "maybe"], "lab: python -m lab fault no-return [on|off]"),
    ],
)
def test_wrong_use_is_one_line(lab: Lab, arguments: list[str], line: str) -> None:
    done = lab(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_every_fault_that_is_listed_can_be_switched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab("up")
    names = [line.split()[0] for line in lab("fault").stdout.splitlines()]
    assert len(names) == 20
    impostor = lab("fault", "impostor", "110", "111")  # which takes two machines that are up
    assert (impostor.returncode, impostor.stderr) == (1, "lab: /_lab/fault: vm 110 is not up\n")
    assert "fault impostor HOST VMID" in lab("fault", "impostor", "nobody", "111").stderr
    assert lab("fault", names[0], "on", "vmid=110").returncode == 0
    monkeypatch.setattr(Places, "here", lambda: lab.places)  # a Python for each would be ten seconds
    for name in (name for name in names if name != "impostor"):
        assert cli.main(["fault", name, "on", "vmid=110"]) == 0, name
        assert cli.main(["fault", name, "off"]) == 0, name


def test_down_leaves_nothing(lab: Lab) -> None:
    lab("up")
    lab.start("run", "--", "sleep", "100")
    time.sleep(0.5)
    assert lab("down").returncode == 0
    until(lambda: not lab.traces(), 3)
    assert cgroups(lab.places) == []
    assert "it was not running" in lab("down").stderr


@pytest.mark.parametrize("seed", range(6))
def test_an_up_killed_at_any_moment_leaves_a_lab_that_is_known_or_none(lab: Lab, seed: int) -> None:
    process = lab.start("up")
    time.sleep(random.Random(seed).uniform(0.05, 0.7))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if Running.find(lab.places) is None:
        until(lambda: not lab.traces(), 5)
    assert lab("up").returncode == 0
    assert (
        lab(
            "run", "--", "sh", "-c", "cd $FLEET && nix eval .#nixosConfigurations.dev.config.networking.hostName"
        ).returncode
        == 0
    )
    assert lab("down").returncode == 0
    until(lambda: not lab.traces(), 5)


def test_two_checkouts_run_a_lab_each(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other")
    try:
        assert lab("up").returncode == 0
        assert other("up").returncode == 0
        assert lab("down").returncode == 0
        assert "104  running" in other("status").stdout
    finally:
        other("down")
