"""SIGKILL while the history is written, at many moments: nothing is lost, and it can be made from the journals."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nixherd.deploy.history import RECORDED, all_lines, catch_up, place
from nixherd.deploy.numbers import deployments, runs

RUNS, HOSTS = 30, 20
MAKE = """
import sys
from nixherd.deploy import history
from nixherd.deploy.history import new_directory, record
from nixherd.deploy.report import Journal
history._KEPT = 10_000
print("ready", flush=True)
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    directory = new_directory()
    journal = Journal(directory)
    journal.note("command", command="deploy", who="alice@desk", fleet="/fleet", asks=False)
    hosts = [f"h{each}" for each in range(int(sys.argv[3]))]
    journal.note("run", hosts=hosts, steps=["deploy"], dry=False, warnings=[])
    for host in hosts:
        journal.note("made", host, text="x" * 500)
    journal.note("done", exit=0, interrupted=False, pyinfra=0)
    journal.close()
    record(directory)
"""


@pytest.mark.process
def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("nixherd.deploy.history._KEPT", 10_000)
    chance = random.Random(19)
    for _ in range(12):
        argv = [sys.executable, "-c", MAKE, "0", str(RUNS), str(HOSTS)]
        child = subprocess.Popen(argv, env=os.environ, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    kept = all_lines()
    whole = {run.name for run in runs() if '"done"' in (run / "journal.jsonl").read_text()}
    assert whole
    assert {line.run for line in kept if line.outcome == "done"} == whole
    assert all(len([line for line in kept if line.run == run]) == HOSTS for run in whole)
    for line in place().read_text().splitlines():
        assert not line or json.loads(line)["run"] in {run.name for run in deployments().iterdir()}
    # lost as a whole, it is made again from the journals, to the same rows
    shutil.rmtree(place().parent)
    for run in runs():
        (run / RECORDED).unlink(missing_ok=True)
    catch_up()
    assert sorted(all_lines(), key=lambda line: (line.run, line.host or "")) == sorted(
        kept, key=lambda line: (line.run, line.host or "")
    )
