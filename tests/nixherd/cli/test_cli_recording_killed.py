"""SIGKILL at every line that notes what a command changes: whoever comes next tells of what was changed, once."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nixherd.deploy.history import RECORDED, HistoryLine, all_lines, catch_up, place
from nixherd.deploy.numbers import runs

EACH = """
import os, signal, sys
from itertools import count
from pathlib import Path
from nixherd.cli.recording import Recording

FILES = ("cli/recording.py", "deploy/history.py", "deploy/numbers.py", "base/files.py")


def act(state):
    with Recording(Path("/fleet"), ["dev", "dev2"]) as recording:
        recording.begin()
        (state / "changed").touch()
    with Recording(Path("/fleet"), []) as recording:
        recording.begin()
        (state / "changed too").touch()


def ends(number, state):
    seen = 0

    def trace(frame, event, argument):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        if event == "line":
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child == 0:
        sys.settrace(trace)
        act(state)
        os._exit(0)
    return os.WIFEXITED(os.waitpid(child, 0)[1])


for number in count(int(sys.argv[2]), int(sys.argv[3])):
    state = Path(sys.argv[1], str(number))
    state.mkdir()
    os.environ["XDG_STATE_HOME"] = str(state)
    if ends(number, state):
        break
"""
STEP = int(os.environ.get("KILL_STEP", "41"))  # by hand 1, which takes two minutes
FIRST = 1 + (0 if "CI" in os.environ else os.getpid() % STEP)


def by_run(lines: list[HistoryLine]) -> list[HistoryLine]:
    return sorted(lines, key=lambda line: (line.run, line.host or ""))


@pytest.mark.process
def test_killed_at_any_line_what_was_changed_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [sys.executable, "-c", EACH, str(tmp_path), str(FIRST), str(STEP)]
    done = subprocess.run(script, cwd=Path(__file__).parents[3], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    states = sorted(tmp_path.iterdir(), key=lambda state: int(state.name))
    assert len(states) > 300 // STEP
    for state in states:
        monkeypatch.setenv("XDG_STATE_HOME", str(state))
        lines = all_lines()
        hosts = Counter(line.host for line in lines)
        changed = (state / "changed").exists(), (state / "changed too").exists()
        assert hosts["dev"] == hosts["dev2"]
        assert (hosts["dev"] >= changed[0], hosts[None] >= changed[1], max(hosts.values(), default=0) <= 1) == (
            *(True, True, True),
        ), state
        assert {line.outcome for line in lines} <= {"done", "unknown"}
        assert all(line.changed is not False for line in lines)
        written = [json.loads(line) for line in place().read_text().splitlines() if line] if lines else []
        assert len(written) == len(lines)
        shutil.rmtree(place().parent, ignore_errors=True)
        for run in runs():
            (run / RECORDED).unlink(missing_ok=True)
        catch_up()
        assert by_run(all_lines()) == by_run(lines)
    assert Counter(line.outcome for line in lines) == {"done": 3}
