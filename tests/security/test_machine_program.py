"""The machine's program and its protocol, without a machine."""

import os
import re
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nixherd.base.errors import Exit, FleetError, NotBegun, ProcessFailed, Undecided
from nixherd.deploy import protocol as activation
from nixherd.deploy.build import judge
from nixherd.deploy.machine import Machine
from nixherd.deploy.options import Goal, Options
from nixherd.deploy.plan import INHIBITORS, INIT, inhibitors_between
from nixherd.deploy.protocol import Deployment, Stage, parse
from nixherd.deploy.report import Journal, Outcome, entries, report
from nixherd.deploy.rollout import HostRun, Rollout
from nixherd.deploy.running import Running
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
from tests.nixherd.proxmox.fleets import FLEET, HOST

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
    with expected, rollout.turn(host_run):
        raise TypeError("object of type 'Host' has no len()")
    journal.close()
    [row] = report(entries(tmp_path / "run")).hosts
    assert (row.outcome, row.exit) == (Outcome.UNKNOWN, Exit.UNKNOWN)
    assert "activate: TypeError: object of type" in str(row.why)
    assert "decides by itself" not in str(row.why)
    assert "test_machine_program.py" in (tmp_path / "nixherd" / "faults.log").read_text()
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
        (replace(NOW, profile=OTHER), None, "deployed, not well", "its profile leads to .*25.11.*, not .*26.05"),
    ],
)
def test_nixos_rebuild_is_judged_by_what_is_read_back(
    now: Running, failure: ProcessFailed | None, outcome: str | None, error: str | None, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "run")
    _, host_run = rolled_out(journal)
    expected = pytest.raises(FleetError, match=error) if error else nullcontext()
    with expected as raised:
        judge(host_run, BEFORE, now, SYSTEM, "switch", failure, system=SYSTEM)
    journal.close()
    assert host_run.outcome == outcome
    if raised is not None:
        assert isinstance(raised.value, NotBegun) == (now is BEFORE and failure is not None)
