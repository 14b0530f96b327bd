"""The commands of machine.sh, and what it answers."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.deploy import protocol as activation
from nixherd.deploy.options import Goal
from nixherd.deploy.protocol import Deployment, Kind, Stage, Standing, parse

SYSTEM = f"/nix/store/{'a' * 32}-nixos-system-dev-26.05"
REVISION = "4f2c0d9b7e6a000000000000000000000000c0de"
OLD = f"/nix/store/{'b' * 32}-nixos-system-dev-25.11"


def deployment(**changes: Any) -> Deployment:
    usual: dict[str, Any] = {"id": "20261128T2000-1", "who": "admin@laptop-1", "goal": Goal.SWITCH, "system": SYSTEM}
    usual |= {"specialisation": None, "deadline": 600, "confirm": 120}
    return Deployment(**{**usual, **changes})


def test_an_answer() -> None:
    said = [
        *(
            "protocol=3",
            "id=20261128T2000-1",
            "who=admin@laptop-1",
            "state=reverting",
            "why=units failed: a.service (status 4)",
        ),
        *(f"new={SYSTEM}", f"old={OLD}", "left=-3", "waits=b.service", "failed=", f"current={SYSTEM}"),
        *(f"profile={OLD}", "boot_id=0ea6", "hostname=dev", 'version={"configurationRevision":"4f2c"}'),
        *(f"noted={SYSTEM} {REVISION} 2026-11-29T21:03:27Z me@x y", f"kept_as={OLD} {REVISION} x y z", "unnoted=full"),
        *("log=activating the configuration...", "log= a=b", "state=kept"),
    ]
    assert parse("\n".join(said)) == Standing(
        Stage.REVERTING,
        id="20261128T2000-1",
        who="admin@laptop-1",
        why="units failed: a.service (status 4)",
        new=SYSTEM,
        old=OLD,
        waits="b.service",
        current=SYSTEM,
        profile=OLD,
        boot_id="0ea6",
        hostname="dev",
        revision=REVISION,
        configuration_revision="4f2c",
        unnoted="full",
        noted=f"{SYSTEM} {REVISION} 2026-11-29T21:03:27Z me@x y",
        kept_as=f"{OLD} {REVISION} x y z",
        left=-3,
        log=("activating the configuration...", " a=b"),
    )
    assert parse("protocol=3\nrefused=no\n") == parse("refused=no") == Standing(Stage.REFUSED, why="no")
    assert parse("protocol=3\nbusy=somebody\nstate=proving").busy == "somebody"


@pytest.mark.parametrize(
    ("noted", "revision"),
    [
        (f"{SYSTEM} {REVISION} w w r", REVISION),
        (f"{OLD} {REVISION} w w r", "4f2c"),  # of another path: the system's own word
        (f"{SYSTEM} - w w r", "4f2c"),
        (f"{SYSTEM} {REVISION}", "4f2c"),  # cut off
        ("", "4f2c"),
    ],
)
def test_a_note_counts_only_while_that_very_path_runs(noted: str, revision: str) -> None:
    said = f'protocol=3\nstate=none\ncurrent={SYSTEM}\nnoted={noted}\nversion={{"configurationRevision":"4f2c"}}'
    assert parse(said).revision == revision
    assert parse(f"protocol=3\nstate=kept\nnew={SYSTEM}\nkept_as={noted}").kept_revision == (
        REVISION if revision == REVISION else None
    )


@pytest.mark.parametrize("revision", [None, "v1.2", "x; reboot"])
def test_what_is_no_revision_is_not_told(revision: str | None) -> None:
    assert f"{shlex.join(['', '-'])}; rm -f program-" in deployment(revision=revision).note[0]
    assert deployment(revision=revision, gated=True).begin[0].split()[-1] == "-"


@pytest.mark.parametrize("text", ["", "state=", "state=nonsense", "sudo: a password is required"])
def test_what_is_no_answer(text: str) -> None:
    with pytest.raises(FleetError, match="the machine did not say how its deployment stands"):
        parse(text)


@pytest.mark.parametrize(
    "changes",
    [{"id": "a b"}, {"id": "$(x)"}, {"id": ""}, {"who": "a;b"}, {"specialisation": "../x"}, {"system": "/tmp/x"},
     {"system": f"{SYSTEM}/x"}, {"system": f"{SYSTEM}'"}],
)  # fmt: skip
def test_nothing_reaches_a_shell_that_is_no_name(changes: dict[str, object]) -> None:
    with pytest.raises(FleetError):
        deployment(**changes)


def test_what_is_said_is_one_word_for_the_shell(tmp_path: Path) -> None:
    why = 'it\'s "broken"; $(touch /tmp/x)\nand more'
    program = tmp_path / "run/program"
    program.parent.mkdir()
    program.write_text('printf "<%s>" "$@"')
    directory = f"{Kind.SYSTEM.directory}/20261128T2000-1"
    command = deployment().back(why).replace(directory, shlex.quote(str(tmp_path / "run")))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"<system><say><20261128T2000-1><back><{' '.join(why.split())}>"


def test_a_machine_without_notes_says_so() -> None:
    for command in (deployment().look(Stage.ARMED), deployment(kind=Kind.HOME).keep, activation.last(Kind.HOME)):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert parse(done.stdout).stage is Stage.NONE


@pytest.mark.parametrize(
    ("states", "known", "stage", "tells_all"),
    [
        ("armed\nactivating\n", Stage.ARMED, Stage.ACTIVATING, False),
        ("armed\nactivating\n", Stage.NONE, Stage.ACTIVATING, True),
        ("armed\nactivating\nproving\n", Stage.ACTIVATING, Stage.PROVING, True),
        ("armed\nactivating\nproving\nkeeping\nkept\n", Stage.KEEPING, Stage.KEPT, True),
        ("armed\nactivating\nprov", Stage.ARMED, Stage.ACTIVATING, False),
    ],
)
def test_who_waits_is_told_all_of_the_proof_and_of_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: str, known: Stage, stage: Stage, tells_all: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = deployment(kind=Kind.HOME)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = tmp_path / f".local/state/nixherd/deploy-{boot}"
    own = here / home.id
    own.mkdir(parents=True)
    (own / "program").write_text(home.begin[1])
    (own / "settings").write_text(f"who=admin goal=switch new={SYSTEM} target={SYSTEM} old={OLD} generation=\n")
    (own / "state").write_text(states)
    (own / "forth.log").write_text("activating\n")
    (here / f"nixherd-deploy-{home.id}.service.pid").write_text(f"{os.getpid()}\n")
    done = subprocess.run(["sh", "-c", home.look(known, 0)], capture_output=True, text=True, check=True)
    now = parse(done.stdout)
    assert (now.stage, now.new, now.old) == (stage, SYSTEM, OLD)
    assert (now.boot_id == boot, now.log == ("activating",)) == (tells_all, tells_all)


def test_ends() -> None:
    assert {stage for stage in Stage if stage.is_end} == {
        *(Stage.KEPT, Stage.REVERTED, Stage.REFUSED, Stage.STUCK, Stage.LOST, Stage.NONE)
    }


def test_the_program_is_a_shell_script() -> None:
    subprocess.run(["sh", "-n"], input=deployment().begin[1], text=True, check=True)
