"""What a machine answers: strictly read, and whatever it says is no more than a text."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.deploy.protocol import Kind
from nixherd.fleet.revisions import Note
from nixherd.overview.document import Space
from nixherd.overview.machine import Seen, parse, script
from nixherd.overview.updates import PULL, UPGRADE

SYSTEM = f"/nix/store/{'a' * 32}-nixos-system-web01-26.05"
COMMIT = "1" * 40
RUNNING = [f"current={SYSTEM}", f"profile={SYSTEM}", f"booted={SYSTEM}", "hostname=web01", "boot_id=b", "sudo=root"]
NOTE = f"{SYSTEM} {COMMIT} 2026-11-30T10:00:00Z alice@desk 20261130T100000-1"
REST = [
    *("failed=a.service b.service", "generation=42", "kernel=6.12.1", "next_kernel=6.12.2", "uptime=86400"),
    *("memory.total=1000", "memory.available=400", "disk./=100 60", "disk./boot=10 1", f"timer.{UPGRADE}=inactive"),
    *(f"timer.{PULL}=active", "secret.0=yes", "secret.1=no", "secret.2=unknown", f"note.1={NOTE}"),
]
SECRETS = ("/run/secrets/a", "/run/secrets/b", "/run/secrets/c", "/run/secrets/d")


def test_a_whole_answer() -> None:
    seen = parse(Kind.SYSTEM, [*RUNNING, *REST], SECRETS)
    assert seen.running is not None
    assert (seen.running.current, seen.running.failed) == (SYSTEM, ("a.service", "b.service"))
    assert (seen.generation, seen.kernel, seen.next_kernel, seen.uptime) == (42, "6.12.1", "6.12.2", 86400)
    assert seen.memory == Space("memory", 1024000, 614400)
    assert seen.disks == (Space("/", 102400, 61440), Space("/boot", 10240, 1024))
    assert seen.timers == {UPGRADE: False, PULL: True}
    assert [*seen.secrets.values()] == [True, False, None, None]
    assert [str(note) for note in seen.notes or ()] == [NOTE]
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen


def test_an_answer_that_says_no_more_than_what_runs() -> None:
    seen = parse(Kind.SYSTEM, RUNNING, SECRETS[:1])
    assert (seen.generation, seen.uptime, seen.memory, seen.disks, seen.timers, seen.notes) == (
        *[None] * 3,
        (),
        None,
        None,
    )
    assert seen.secrets == {SECRETS[0]: None}


WRONG_MEMORY = ("memory.total=0", "memory.available=2000")
WRONG_DISKS = ("disk./=100", "disk./=1 2", "disk.x=100 1", "disk./=9999999999999999999 1")
WRONG_NUMBERS = ("uptime=-1", "uptime=1e9", "uptime=999999999999999999999", "uptime=١", "generation=x")


@pytest.mark.parametrize("line", [*WRONG_NUMBERS, *WRONG_MEMORY, *WRONG_DISKS, f"timer.{UPGRADE}=perhaps"])
def test_what_cannot_be_is_as_if_it_was_not_there(line: str) -> None:
    rest = [each for each in REST if each.partition("=")[0] != line.partition("=")[0]]
    assert parse(Kind.SYSTEM, [*RUNNING, *rest, line]) == parse(Kind.SYSTEM, [*RUNNING, *rest])


@pytest.mark.parametrize("text", ["rm -rf /", f"{NOTE} and more", NOTE.replace("/nix/store", "/tmp")])
def test_a_note_that_is_none_is_left_out(text: str) -> None:
    assert parse(Kind.SYSTEM, [*RUNNING, f"note.1={text}", f"note.2={NOTE}"]).notes == (Note.parse(NOTE),)


def test_notes_of_both_files_are_each_once_by_their_times() -> None:
    first, again = NOTE.replace("-1", "-0"), NOTE.replace("T10", "T12").replace("-1", "-2")
    second = NOTE.replace("T10", "T11").replace("a" * 32, "b" * 32)
    noted = [f"note.{number}={each}" for number, each in enumerate((NOTE, second, again, second, again, first), 1)]
    found = parse(Kind.SYSTEM, [*RUNNING, *noted]).notes or ()
    assert [str(each) for each in found if str(each) != first] == [NOTE, second, again]


@given(st.lists(st.text(max_size=40) | st.sampled_from([*RUNNING, *REST]), max_size=40))
def test_whatever_a_machine_says_it_is_read_or_refused(lines: list[str]) -> None:
    try:
        seen = parse(Kind.SYSTEM, lines, SECRETS)
    except FleetError:
        return
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    assert all(space.total >= space.used >= 0 for space in seen.disks)


def test_machines_are_asked_for_secrets_by_their_paths_as_they_are() -> None:
    text = script(Kind.SYSTEM, ["/run/secrets/a b'; touch /tmp/x #"])
    assert """look_at_secret 0 '/run/secrets/a b'"'"'; touch /tmp/x #'""" in text


@pytest.mark.parametrize("kind", Kind)
def test_the_script_is_one_that_any_shell_reads(kind: Kind) -> None:
    done = subprocess.run(["sh", "-n", "-c", script(kind, SECRETS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_whether_a_secret_is_there(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    part = Path(__file__).parents[3].joinpath("nixherd/overview/machine.sh").read_text().partition("read -r uptime")[0]
    paths = ("there", "broken", "nothing", "no/directory")
    asked = [f"look_at_secret {number} '{tmp_path / path}'" for number, path in enumerate(paths)]
    text = "\n".join(['say() { printf \'%s=%s\\n\' "$1" "$2"; }', part, *asked])
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["secret.0=yes", "secret.1=no", "secret.2=no", "secret.3=no"]
