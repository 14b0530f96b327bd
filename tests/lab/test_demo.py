"""`make demo`, without the lab: what is printed of a run, and that two in one checkout do not meet."""

import multiprocessing
import multiprocessing.synchronize
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lab.demo import Stage, Story, alone, excerpt
from lab.errors import LabError
from lab.places import Places

LINES = ["    [dev]        clone template 9002\n", "    [dev]        Success\n", f"{'x' * 200}\n", "\n"]


def test_an_excerpt_is_a_line_for_each_word() -> None:
    assert excerpt(LINES, ("clone", "Success")) == ["clone template 9002", "Success"]
    [long] = excerpt(LINES, ("xxx",))
    assert (len(long), long[-1]) == (110, "…")
    assert excerpt(LINES, ("nowhere",)) == []


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Its commands are run here, and not in a lab."""
    popen = subprocess.Popen

    def here(argv: list[str], **options: Any) -> Any:
        return popen(argv[argv.index("sh") :], **options)

    monkeypatch.setattr(subprocess, "Popen", here)
    return Story(Places(tmp_path), Stage((tmp_path / "log").open("w"), is_verbose=False))


@pytest.mark.process
def test_what_is_printed_and_what_is_logged(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story.section("A title")
    assert story.runs("echo one; echo two", "two", shows=("one",)) == "one\ntwo\n"
    story.runs("echo three", quiet=True)
    story.proven("all of it")
    shown = ["", "== 1. A title", "  $ echo one; echo two", "      one", "  proven: all of it"]
    assert capsys.readouterr().out.splitlines() == shown
    logged = (tmp_path / "log").read_text()
    assert all(f"      {word}\n" in logged for word in ("one", "two", "three"))
    assert "  $ echo three\n" in logged


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "why"), [("echo no", "'yes' is not in"), ("echo yes; exit 3", "status 3 instead of 0")]
)
def test_what_differs_is_shown_and_is_no_success(
    story: Story, capsys: pytest.CaptureFixture[str], command: str, why: str
) -> None:
    with pytest.raises(LabError, match=why):
        story.runs(command, "yes", quiet=True)
    assert capsys.readouterr().out.splitlines() == [f"      {command.split(';')[0].removeprefix('echo ')}"]


def hold(lock: Path, began: multiprocessing.synchronize.Event) -> None:
    with alone(lock):
        began.set()
        time.sleep(0.5)


@pytest.mark.process
def test_the_second_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "demo.lock"
    context = multiprocessing.get_context("spawn")
    began = context.Event()
    other = context.Process(target=hold, args=(lock, began))
    other.start()
    assert began.wait(20)
    before = time.monotonic()
    with alone(lock):
        assert time.monotonic() - before > 0.2
    other.join()
    assert capsys.readouterr().out == "Another demo runs in this checkout; this one begins when that has ended.\n"
    with alone(lock):
        pass
    assert capsys.readouterr().out == ""
