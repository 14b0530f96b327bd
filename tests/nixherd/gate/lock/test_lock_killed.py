"""`nixherd lock update` killed at moments of the test's choosing, and run again."""

import os
import subprocess

import pytest

from tests.nixherd.gate.lock.conftest import Forge
from tests.preloaded.programs import Programs

pytestmark = pytest.mark.slow

MERGE = ("--merge-into", "main", "--push")
# Which git is killed, with us; what has happened by then, a lock that a killed one leaves among it.
MOMENTS = {
    "worktree add": 'really "$@"; touch "$ROOT/fleet/.git/worktrees/tree/index.lock"',
    "update-ref -m": 'touch "$ROOT/fleet/.git/refs/heads/flake-lock-update.lock"',
    "no git but the gate": "",
    "push": ":",
    "push --quiet": 'really "$@"',
}


def test_killed_at_any_moment_it_is_finished_by_the_next_run(forge: Forge, programs: Programs) -> None:
    """SIGKILL: the branch has all of it or nothing, the operator's files are as they were, nothing is in the way."""
    (forge.root / "bin").mkdir()
    wrapper = forge.root / "bin/git"
    command = ["nixherd", "lock", "update", *MERGE]
    path = f"{forge.root}/bin:{programs(dict(os.environ))['PATH']}"
    env = {**os.environ, "PATH": path, "ROOT": str(forge.root)}
    for words, leaves in MOMENTS.items():
        before, data = forge.tip, forge.upstream("data")
        wrapper.write_text(
            '#!/bin/sh\nreally() { PATH="${PATH#*:}" git "$@"; }\n'
            f'case " $* " in *" {words} "*) {leaves or ":"}; kill -KILL $PPID; exit ;; esac\nreally "$@"\n'
        )
        wrapper.chmod(0o755)
        gate = forge.gate if leaves else "kill -KILL $PPID"
        killed = subprocess.run(
            [*command, "--gate", gate], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert killed.returncode == -9, killed.stderr
        assert forge.tip in (before, *forge.judged)
        assert (forge.tip == before) == (words != "push --quiet")
        assert forge.git("fleet", "status", "--porcelain") == ""
        ended = forge.update(*MERGE)
        assert ended.status == 0, ended.err
        assert forge.locked()["data"] == data, words
        assert forge.git("fleet", "branch", "--list").split() == ["*", "main"]
