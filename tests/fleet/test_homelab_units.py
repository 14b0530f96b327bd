"""The units that the modules make, as systemd reads them; and the program that keeps a machine awake."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nix_cli import build

PROGRAM = Path(__file__).parents[2] / "fleet/modules/nixos/homelab/remote-sessions.sh"
OURS = (
    *("homelab-remote-sessions.path", "homelab-remote-sessions.service", "homelab-lan-first.service"),
    *("nix-mirror-prune.service", "nix-mirror-prune.timer", "nixos-upgrade.service", "nixos-upgrade.timer"),
)


def test_systemd_reads_every_unit(flake: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    [units] = build(".#nixosConfigurations.proxmox-vm.config.system.build.units", cwd=flake)
    argv = [analyze, "verify", "--man=no", "--recursive-errors=no", *(str(units / name) for name in OURS)]
    done = subprocess.run(argv, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if any(name in line for name in OURS)]
    assert (done.returncode, lines) == (0, [])


@pytest.fixture
def logind(tmp_path: Path) -> Path:
    """A directory of programs: loginctl tells of the sessions in `sessions/`, systemd-inhibit writes and runs."""
    (tmp_path / "sessions").mkdir()
    programs = {
        "loginctl": f"""cd {tmp_path}/sessions
case $1 in
  list-sessions) for s in *; do [ -e "$s" ] && echo "$s 1000 ann seat0 -"; done ;;
  show-session) cat "$2" ;;
esac; true""",
        "systemd-inhibit": f"""echo "$*" >>{tmp_path}/inhibited
while case $1 in -*) true ;; *) false ;; esac; do shift; done
exec "$@" """,
        "sleep": f"rm -f {tmp_path}/sessions/*; echo slept >>{tmp_path}/inhibited",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("sessions", "inhibits"),
    [
        ({}, False),
        ({"1": "Remote=no\nState=active\n"}, False),
        ({"1": "Remote=no\nState=active\n", "c2": "Remote=yes\nState=active\n"}, True),
        ({"1": "Remote=yes\nState=online\n"}, True),
        ({"1": "Remote=yes\nState=closing\n"}, False),
    ],
)
def test_a_machine_stays_awake_while_somebody_is_logged_in_from_elsewhere(
    logind: Path, sessions: dict[str, str], inhibits: bool
) -> None:
    for name, text in sessions.items():
        (logind / "sessions" / name).write_text(text)
    environment = {**os.environ, "PATH": f"{logind}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", PROGRAM], env=environment, check=True, timeout=10)
    lines = (logind / "inhibited").read_text().splitlines() if (logind / "inhibited").exists() else []
    if not inhibits:
        assert lines == []
        return
    held, slept = lines
    assert held.startswith("--what=sleep --mode=block")
    assert slept == "slept"  # held until nobody was there any more
