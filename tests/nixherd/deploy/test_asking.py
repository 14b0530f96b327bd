"""What a machine is asked with: one program for all units, none for a question that its shell can answer."""

import os
import subprocess
from pathlib import Path

import pytest

from nixherd.base.becoming_root import Become
from nixherd.deploy.protocol import part
from nixherd.deploy.running import REVISION
from nixherd.facts.nixos import CurrentSystem, Revision
from nixherd.overview.machine import _part as looks
from nixherd.overview.updates import PULL, UPGRADE

UNITS = f"""\
a.service                loaded failed   failed       A that fails
b.service                loaded activating auto-restart B
c.service                loaded active   running      C, active
d.service                loaded reloading reload      D
dev-disk-by\\x2dlabel.device loaded active plugged    a \\ device
nixherd-deploy-1.service loaded active   running      a deployment
nixherd-deploy-2.service loaded failed   failed       one that failed
nixos-rebuild-switch-to-configuration.service loaded activating start a switch
{PULL}        loaded active   waiting      Pull
"""
shells = pytest.mark.parametrize("shell", ["dash", "bash"])


def told(shell: str, script: str, directory: Path | None = None) -> list[str]:
    """What the script prints, and nothing on stderr."""
    environment = {"PATH": f"{directory}:{os.environ['PATH']}"} if directory else dict(os.environ)
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def script(units: Path) -> str:
    say = 'say() { name=$1; shift; printf "%s=%s\\n" "$name" "$*"; }'
    fake = f"has_systemd() {{ true; }}\nsystemctl() {{ cat {units}; }}"
    timers = looks()[looks().index("look_at_timers()") : looks().index("look_at_secret()")]
    shown = "say failing $failing; say running $running; say at_work $at_work"
    return "\n".join(
        ["kind=system", say, part("units.sh"), fake, timers, "look_at_units", shown, f"look_at_timers {UPGRADE} {PULL}"]
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    file = tmp_path / "units"
    file.write_text(UNITS)
    return file


@shells
def test_units_and_timers_are_one_list(shell: str, units: Path) -> None:
    assert told(shell, script(units)) == [
        "failing=a.service b.service nixherd-deploy-2.service",
        rf"running=c.service d.service dev-disk-by\x2dlabel.device nixherd-deploy-1.service {PULL}",
        "at_work=nixherd-deploy-1.service nixos-rebuild-switch-to-configuration.service",
        f"timer.{UPGRADE}=inactive",
        f"timer.{PULL}=active",
    ]


@shells
def test_many_units(shell: str, units: Path) -> None:
    """More than a pipe takes before somebody reads it."""
    units.write_text("".join(f"unit{n}.service loaded failed failed {'x' * 200}\n" for n in range(1000)))
    assert told(shell, script(units))[0] == "failing=" + " ".join(f"unit{n}.service" for n in range(1000))


@shells
def test_without_an_answer_nothing_is_known_of_timers(shell: str, units: Path) -> None:
    units.write_text("")
    assert told(shell, script(units)) == ["failing=", "running=", "at_work="]


JSON = '{"configurationRevision":"4f2c","nixosVersion":"26.05"}'
PROGRAM = f"#!/bin/sh\ncase $1 in\n  --json)\n    cat <<'EOF'\n{JSON}\nEOF\n    ;;\nesac\n"


@shells
@pytest.mark.parametrize(
    ("program", "printed", "version"),
    [
        (PROGRAM, "no", JSON),
        (PROGRAM.replace("'EOF'", "EOF").replace("4f2c", "$(x)"), "run", "run"),  # whatever a shell would make of it
        ("\x7fELF\n" + JSON, "run", "run"),
        ("#!/bin/sh\nexec other\n", "run", "run"),
        (None, "run", "run"),
    ],
)
def test_the_version_is_read_where_it_is_written(
    shell: str, program: str | None, printed: str, version: str, tmp_path: Path
) -> None:
    file = tmp_path / "program"
    if program is not None:
        file.write_text(program)
    other = tmp_path / "nixos-version"
    other.write_text(f"#!/bin/sh\necho {printed}\n")
    other.chmod(0o755)
    asking = REVISION.replace("/run/current-system/sw/bin/nixos-version", str(file))
    assert asking != REVISION
    assert told(shell, f"kind=system current=/x\n{asking}", tmp_path) == ["noted=", f"version={version}"]


@shells
def test_root_is_known_without_a_program(shell: str, tmp_path: Path) -> None:
    for name in ("id", "sudo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 7\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    expected = "root" if os.geteuid() == 0 else "asks"
    assert told(shell, Become.SUDO.state(), tmp_path) == [expected]


@shells
@pytest.mark.parametrize("fact", [CurrentSystem(), Revision()], ids=lambda fact: type(fact).__name__)
def test_facts_of_the_running_system_ask_for_its_very_path(
    shell: str, fact: CurrentSystem | Revision, tmp_path: Path
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    (tmp_path / "run").symlink_to(system)
    commit = "1" * 40
    (tmp_path / "revisions").write_text(f"/nix/store/other {commit} x y z\n{system} {commit} x y z\n")
    places = {"/run/current-system": str(tmp_path / "run"), "/var/lib/nixherd/revisions": str(tmp_path / "revisions")}
    text = fact.command()
    for place, ours in places.items():
        text = text.replace(place, ours)
    lines = told(shell, text)
    assert f"path={system}" in lines
    assert f"noted={system} {commit} x y z" in lines
