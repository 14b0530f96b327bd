"""update.yml as act runs it, offline, against a bare repository: our own action is real, foreign ones are stand-ins."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.places import cache_directory
from lab.setup import golang
from tests.nix_cli import environment
from tests.nixherd.lock.conftest import Forge, forge  # noqa: F401  (fixture)

pytestmark = [pytest.mark.unit, pytest.mark.slow]

GITHUB = Path(__file__).parents[2] / "fleet/.github"
# What is needed of foreign actions here.
STAND_INS = {
    "actions/checkout": 'git clone --quiet "$ORIGIN" "$GITHUB_WORKSPACE/${{ inputs.path }}"',
    "actions/create-github-app-token": "exit 1",
    "cachix/install-nix-action": "nix --version",
}


@pytest.fixture(scope="module")
def program() -> Path:
    """act, from the cache of whoever runs the tests; forge's fixture has a HOME of its own."""
    try:
        return golang.program(cache_directory(), golang.ACT, 3)
    except golang.GoMissing as why:
        pytest.skip(str(why))


@pytest.fixture
def act(program: Path, forge: Forge) -> Callable[[], subprocess.CompletedProcess[str]]:  # noqa: F811
    """Runs the workflow as the schedule would."""
    shutil.copytree(GITHUB, forge.root / "person/.github")
    forge.theirs(readme="with workflows")
    forge.git("fleet", "pull", "-q", "origin", "main")
    text = "".join(file.read_text() for file in GITHUB.rglob("*.yml"))
    replaced = []
    for action, script in STAND_INS.items():
        directory = forge.root / "actions" / action
        directory.mkdir(parents=True)
        inputs = {name: {"default": ""} for name in ("path", "fetch-depth", "token")}
        steps = [{"shell": "bash", "run": script}]
        about = {"name": action, "inputs": inputs, "runs": {"using": "composite", "steps": steps}}
        (directory / "action.yml").write_text(json.dumps(about))
        commits = set(re.findall(rf"{action}@([0-9a-f]{{40}})", text))
        replaced += [f"--local-repository={action}@{commit}={directory}" for commit in commits]
    event = {"repository": {"default_branch": "main", "full_name": "me/fleet"}}
    (forge.root / "event.json").write_text(json.dumps(event))
    (forge.root / "judge").write_text(f"#!/bin/sh\n{forge.gate}")
    (forge.root / "judge").chmod(0o755)
    options = [
        *("-P", "ubuntu-latest=-self-hosted", "--action-offline-mode", "--pull=false", "--no-cache-server"),
        *("--no-skip-checkout", "-e", forge.root / "event.json", "-C", forge.root / "fleet"),
        *("-W", ".github/workflows/update.yml", "--env", f"ORIGIN={forge.root}/origin.git"),
        *("--var", "NIXHERD_TOOLS=none", "--var", f"NIXHERD_GATE={forge.root}/judge"),
    ]
    own = {"HOME": str(forge.root), "XDG_STATE_HOME": str(forge.root / "state")}
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    # without a network: what would reach for one fails
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*alone, program, "schedule", *replaced, *options],
            env={**environment(), **own, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_good_update_merges_a_bad_one_is_left_behind_a_race_is_retried(
    forge: Forge,  # noqa: F811
    act: Callable[[], subprocess.CompletedProcess[str]],
) -> None:
    old = forge.locked()
    data = forge.upstream("data")
    forge.upstream("tool", bad="tool has no lid")
    # the first time that the gate is asked somebody pushes
    (forge.root / "first").touch()
    push = f"cd {forge.root}/person && git pull -q origin main && date >>readme"
    push += " && git commit -qam theirs && git push -q origin HEAD:main"
    judge = forge.root / "judge"
    judge.write_text(f"#!/bin/sh\nif rm {forge.root}/first 2>/dev/null; then ({push}); fi\n{forge.gate}")
    done = act()
    said = done.stdout + done.stderr
    assert done.returncode == 1, said  # red, for the input that is left behind
    assert forge.locked() == {**old, "data": data}, said
    assert forge.tip in forge.judged
    assert forge.git("origin.git", "log", "-2", "--format=%s", "main").splitlines() == [
        "flake.lock: update data",
        "theirs",
    ]
    assert "left behind: tool: tool has no lid" in said
    assert "origin/main moved meanwhile: once more on that" in said
    assert "github-actions[bot]" in forge.git("origin.git", "log", "-1", "--format=%an", "main")


def test_a_day_on_which_all_is_well(
    forge: Forge,  # noqa: F811
    act: Callable[[], subprocess.CompletedProcess[str]],
) -> None:
    new = {name: forge.upstream(name) for name in ("base", "data", "tool")}
    done = act()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (forge.locked(), forge.judged) == (new, [forge.tip])
