"""A full disk, an output that nobody reads, odd words."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base import process
from nixherd.base.errors import Exit, FleetError, ProcessFailed
from nixherd.cli.main import run
from nixherd.deploy.report import entries
from tests import nix_cli
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.preloaded.programs import Programs
from tests.security.one_thing.conftest import BAD, Ended, Place, alone, deploy, reboot

FULL = 'mount -t tmpfs -o size=256k,mode=700 tmpfs "$XDG_STATE_HOME"; "$@"'
READ_ONLY = 'mount --bind "$XDG_STATE_HOME" "$XDG_STATE_HOME"; mount -o remount,bind,ro "$XDG_STATE_HOME"; "$@"'


@pytest.mark.parametrize("act", [deploy, reboot])
@pytest.mark.parametrize(
    "script", [READ_ONLY, FULL.replace('"$@"', 'cat /dev/zero >"$XDG_STATE_HOME/x" 2>/dev/null; "$@"')]
)
def test_without_a_state_directory_nothing_begins(place: Place, script: str, act: Callable[[Place], Ended]) -> None:
    place.shell = alone(script)
    ended = act(place)
    assert (ended.status, ended.out) == (Exit.REMOTE, "")
    [line] = ended.err.splitlines() or [""]
    assert re.search(r"(Read-only file system|No space left on device): .* so nothing was begun; make room", line)


def test_without_a_state_directory_pyinfra_says_one_line(place: Place) -> None:
    place.planted = {"place": "", "host": "", "errors": {}}  # the machines
    place.shell = alone(READ_ONLY)
    for words in (["deploys/deploy.py"], ["deploys/reboot.py"]):
        ended = place.pyinfra(*words)
        assert ended.status == Exit.REMOTE, ended.err
        [line] = [line for line in ended.err.splitlines() if "Read-only" in line]
        assert "nothing was begun" in line
    ended = place.pyinfra("deploys/secrets_check.py", "--limit", "a")
    assert "Read-only" in ended.err or ended.status == 0


@pytest.mark.parametrize(
    ("moment", "status", "outcome", "why"),
    [
        ("copy", Exit.REMOTE, "failed", "the run ended before it was deployed to (at "),
        ("begin", Exit.UNKNOWN, "unknown", "the run ended while it was at activate; the machine decides by itself"),
        ("say", Exit.UNKNOWN, "unknown", "the run ended while it was at keep; the machine decides by itself"),
    ],
)
def test_a_disk_that_fills_up_meanwhile(place: Place, moment: str, status: Exit, outcome: str, why: str) -> None:
    """What cannot be noted is not begun; what was begun is the machine's to decide, and is called unknown."""
    place.planted = {"place": "", "host": "", "errors": {}, "fill": moment}
    ended = deploy(place)
    assert ended.status == (status if moment == "copy" else Exit.UNKNOWN), ended.err
    found = Counter(host["outcome"] for host in ended.hosts.values() if why in host["why"])
    assert found[outcome] == (4 if moment == "copy" else 1), ended.out
    assert {host["outcome"] for host in ended.hosts.values()} <= {outcome, "failed"}  # nothing new was begun
    lines = [line for line in ended.err.splitlines() if "File too large" in line]
    assert (
        sum("journal.jsonl: File too large: it cannot be written, so nothing new is begun" in line for line in lines)
        == 1
    )
    assert all(sum(f" {host}: " in line for line in lines) <= 1 for host in "abku"), ended.err


@pytest.mark.process
def test_a_journal_that_cannot_be_written_keeps_whole_lines(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from nixherd.deploy.report import Journal
journal = Journal(Path(sys.argv[1]))
journal.note("run", hosts=["a"])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 10_000))
for text in ("x" * 50, "y"):
    journal.note("said", "a", text=text)
try:
    journal.note("stage", "a", stage="copy")
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
journal.note("end", "a", outcome="failed")
Journal(Path(sys.argv[1])).note("done", exit=4)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("it cannot be written") == 1
    assert "File too large" in done.stdout or "No space" in done.stdout
    assert [entry["event"] for entry in entries(tmp_path / "run")] == ["run", "end", "done"]


OUTPUTS = {
    "closed stdout": '"$@" >&-',
    "closed stderr": '"$@" 2>&-',
    "both closed": '"$@" >&- 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "head": '"$@" | head -1; exit ${PIPESTATUS[0]}',
    "nobody reads": '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
    "full stderr": '"$@" 2>/dev/full',
}
UNWRITABLE = {"full stdout": '"$@" >/dev/full', "both full": '"$@" >/dev/full 2>&1'}
ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "LANG": "C"},
}


@pytest.mark.parametrize("how", ["closed stdout", "all closed", "head", "nobody reads", "full stdout", "ascii", "C"])
def test_a_deployment_decides_the_status_whoever_reads(place: Place, how: str) -> None:
    place.planted = {"place": "", "host": "", "errors": {}}
    place.shell = {**OUTPUTS, **UNWRITABLE}.get(how, '"$@"')
    place.environment = {**place.environment, **ENCODINGS.get(how, {})}
    ended = reboot(place)
    assert ended.status == (Exit.FAILED if how in UNWRITABLE else Exit.DONE), ended.err
    [report] = place.state.glob("nixherd/.deployments/*/report.json")
    assert {each["outcome"] for each in json.loads(report.read_text())["hosts"]} == {"rebooted"}
    if how not in ("closed stdout", "head", "C"):
        return
    place.planted = {"place": "nixherd/pyinfra_glue/operation.py:_make:1", "host": "host.data.host_id", "errors": BAD}
    assert reboot(place).status == Exit.FAILED


@pytest.mark.parametrize("how", [*OUTPUTS, *UNWRITABLE, *ENCODINGS])
def test_a_changed_guest_decides_the_status_whoever_reads(
    how: str,
    fleet: Path,  # noqa: F811
    dev: Emulator,  # noqa: F811
    tmp_path: Path,
    programs: Programs,
    to_plant_in: Programs,
) -> None:
    token = tmp_path / "token"
    token.write_text(dev.token.to_toml())
    token.chmod(0o600)
    names = {"HOME": str(tmp_path), "FLEET": str(fleet), "PROXMOX_TOKEN_FILE": str(token), "TERM": "dumb"}
    made = Place(
        fleet, programs({**os.environ, **nix_cli.environment(), **names, **ENCODINGS.get(how, {})}), to_plant_in
    )
    made.shell = {**OUTPUTS, **UNWRITABLE}.get(how, '"$@"')
    unwritable = how in UNWRITABLE
    ended = made.nixherd("vm", "snapshot", "dev", "before", "--description", "Müller → ✓", "--table")
    assert ended.status in ((Exit.FAILED,) if unwritable else (Exit.DONE,)), ended.err
    assert any("snapshot" in each for each in dev.changes())
    assert (made.nixherd("vm", "list", "--table").status == 0) == (not unwritable)


@pytest.mark.parametrize(
    "words", [("deploy",), ("plan",), ("reboot",), ("publish",), ("vm", "storage"), ("vm", "start")]
)
def test_odd_words_are_wrong_usage(words: tuple[str, ...], place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    ended = place.nixherd(*words, "a\udcff")
    [line] = ended.err.splitlines()
    assert (ended.status, "is not text" in line) == (Exit.USAGE, True)
    for odd in ("a\0b", "\ud800"):  # which no other program can give us
        assert run([*words, odd]) == Exit.USAGE
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "Traceback" not in err


def test_a_home_that_is_none_is_wrong_usage(place: Place) -> None:
    ended = place.nixherd("--fleet", "~nobody-here/fleet", "check")
    assert (ended.status, ended.err.count("the user does not exist here")) == (Exit.USAGE, 1), ended.err


def test_odd_words_are_wrong_usage_of_pyinfra(place: Place) -> None:
    for words in (["exec", "--limit", "a\udcff", "--", "true"], ["deploys/deploy.py", "--data", "x=\udcff"]):
        ended = place.pyinfra(*words)
        assert (ended.status, ended.err.count("is not text")) == (Exit.USAGE, 1), ended.err


def test_odd_words_start_no_program() -> None:
    for odd in ("a\0b", chr(0xD800)):
        with pytest.raises(ProcessFailed, match=r"^true .*cannot be started: no program can be told this"):
            process.run(["true", odd])
    with pytest.raises(ProcessFailed, match=r"^cat: not started: what it is to read holds half a character$"):
        process.run(["cat"], input=f"secret{chr(0xD800)}")


@pytest.mark.parametrize("odd", ["a\0b", chr(0xD800), chr(0xDCFF)], ids=["NUL", "half", "byte"])
def test_odd_words_are_sent_nowhere(odd: str, emulator: Emulator) -> None:  # noqa: F811
    client = emulator.client()
    for call in (
        lambda: client.storage("prom", odd),
        lambda: client.volumes("prom", "nvmeprom", content=odd),
        lambda: client.set_config("prom", 110, {"description": odd}),
        lambda: client.agent_exec("prom", 110, [odd]),
    ):
        with contextlib.suppress(FleetError):
            call()
    assert not any("nvmeprom" in each for each in emulator.changes())
