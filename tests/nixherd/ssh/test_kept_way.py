"""The way to a machine, in files that stay."""

import subprocess
from pathlib import Path

import pytest

from nixherd.ssh.destination import Destination, Jump, Route
from nixherd.ssh.kept_way import keep

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J"


@pytest.fixture
def way(tmp_path: Path) -> Destination:
    (tmp_path / "run").mkdir()
    known, hop = tmp_path / "run" / "final", tmp_path / "run" / "hop"
    known.write_text(f"192.0.2.7 {KEY}\n")
    hop.write_text(f"gate {KEY}\n")
    jump = Jump("gate", "192.0.2.1", 22, "me", (hop, tmp_path / "nowhere"), "gate")
    return Destination("192.0.2.7", "root", known, port=2222, route=Route(jumps=(jump,)))


@pytest.mark.lab  # OpenSSH
def test_it_stays_when_the_run_is_over(way: Destination, tmp_path: Path) -> None:
    kept = keep(way, tmp_path / "kept")
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    assert kept.config is not None
    assert kept.config.stat().st_mode & 0o777 == 0o600
    assert kept.known_hosts.read_text() == f"192.0.2.7 {KEY}\n"
    text = kept.config.read_text()
    assert str(tmp_path / "run") not in text
    done = subprocess.run(["ssh", "-G", "-F", kept.config, kept.target], capture_output=True, text=True, check=True)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (told["port"], told["userknownhostsfile"]) == ("2222", str(kept.known_hosts))
    assert told["stricthostkeychecking"] in ("true", "yes")
    assert told["proxyjump"].startswith("nixherd-hop-")
    hop = subprocess.run(
        ["ssh", "-G", "-F", kept.config, told["proxyjump"]], capture_output=True, text=True, check=True
    ).stdout
    assert f"userknownhostsfile {tmp_path}/kept/known_hosts-hop-1" in hop
    assert (tmp_path / "kept" / "known_hosts-hop-1").read_text() == f"gate {KEY}\n"
