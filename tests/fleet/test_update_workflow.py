"""The workflows as act runs them, offline, against a bare repository; foreign actions are stand-ins, ours is real."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.places import cache_directory
from lab.setup import golang
from tests.nix_cli import environment
from tests.nixherd.gate.lock.conftest import Forge, forge  # noqa: F401  (fixture)

pytestmark = pytest.mark.slow

GITHUB = Path(__file__).parents[2] / "fleet/.github"
# What is needed of foreign actions here.
STAND_INS = {
    "actions/checkout": 'git clone --quiet "$ORIGIN" "$GITHUB_WORKSPACE/${{ inputs.path }}"',
    "actions/create-github-app-token": 'echo "token=t" >>"$GITHUB_OUTPUT"',
    "cachix/install-nix-action": "nix --version",
    "actions/upload-artifact": 'mkdir -p "$KEPT" && echo "${{ inputs.path }}" | xargs cp -t "$KEPT"',
    "actions/download-artifact": 'cp "$KEPT"/* .',
    "github/codeql-action/upload-sarif": "exit 1",
}
Act = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def program() -> Path:
    """act, from the cache of whoever runs the tests; forge's fixture has a HOME of its own."""
    try:
        return golang.program(cache_directory(), golang.ACT, 3)
    except golang.GoMissing as why:
        pytest.skip(str(why))


@pytest.fixture
def act(program: Path, forge: Forge) -> Act:  # noqa: F811
    """Runs a workflow, unless another is said update.yml as the schedule would: its event names no repository."""
    shutil.copytree(GITHUB, forge.root / "person/.github")
    forge.theirs(readme="with workflows")
    forge.git("fleet", "pull", "-q", "origin", "main")
    text = "".join(file.read_text() for file in GITHUB.rglob("*.yml"))
    replaced = []
    for action, script in STAND_INS.items():
        directory = forge.root / "actions" / action
        directory.mkdir(parents=True)
        inputs = {name: {"default": ""} for name in ("path", "fetch-depth", "token", "name")}
        steps = [{"shell": "bash", "run": script, "id": "it"}]
        outputs = {"token": {"value": "${{ steps.it.outputs.token }}"}}
        description = {
            "name": action,
            "inputs": inputs,
            "outputs": outputs,
            "runs": {"using": "composite", "steps": steps},
        }
        (directory / "action.yml").write_text(json.dumps(description))
        commits = set(re.findall(rf"{action}@([0-9a-f]{{40}})", text))
        replaced += [f"--local-repository={action}@{commit}={directory}" for commit in commits]
    (forge.root / "judge").write_text(f"#!/bin/sh\n{forge.gate}")
    (forge.root / "judge").chmod(0o755)
    options: list[str | Path] = [
        *("-P", "ubuntu-latest=-self-hosted", "--action-offline-mode", "--pull=false", "--no-cache-server"),
        *("--no-skip-checkout", "-e", forge.root / "event.json", "-C", forge.root / "fleet"),
        *("-P", "self-hosted=-self-hosted", "-P", "nix=-self-hosted"),
        *("--env", f"ORIGIN={forge.root}/origin.git", "--env", f"KEPT={forge.root}/kept"),
        *("--var", "NIXHERD_TOOLS=none", "--var", f"NIXHERD_GATE={forge.root}/judge"),
    ]
    home = {"HOME": str(forge.root), "XDG_STATE_HOME": str(forge.root / "state")}
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    # without a network: what would reach for one fails
    alone: list[str | Path] = ["unshare", "--net"] if os.geteuid() == 0 else []

    def run(
        workflow: str = "update", event: str = "schedule", payload: dict[str, Any] | None = None, *words: str
    ) -> subprocess.CompletedProcess[str]:
        (forge.root / "event.json").write_text(json.dumps(payload or {"schedule": "17 14 * * *"}))
        return subprocess.run(
            [*alone, program, event, "-W", f".github/workflows/{workflow}.yml", *replaced, *options, *words],
            env={**environment(), **home, "PATH": f"{forge.root}/bin:{path}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_good_update_merges_a_bad_one_is_left_behind_a_race_is_retried(
    forge: Forge,  # noqa: F811
    act: Act,
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
    output = done.stdout + done.stderr
    assert done.returncode == 1, output  # red, for the input that is left behind
    assert forge.locked() == {**old, "data": data}, output
    assert forge.tip in forge.judged
    assert forge.git("origin.git", "log", "-2", "--format=%s", "main").splitlines() == [
        "flake.lock: update data",
        "theirs",
    ]
    assert "left behind: tool: tool has no lid" in output
    assert "origin/main moved meanwhile: once more on that" in output
    assert "github-actions[bot]" in forge.git("origin.git", "log", "-1", "--format=%an", "main")


def test_a_day_on_which_all_is_well(
    forge: Forge,  # noqa: F811
    act: Act,
) -> None:
    new = {name: forge.upstream(name) for name in ("base", "data", "tool")}
    done = act()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (forge.locked(), forge.judged) == (new, [forge.tip])


def test_a_defect_fails_the_check_and_is_annotated(forge: Forge, act: Act) -> None:  # noqa: F811
    forge.theirs(hosts_nix="{ dev = 1; }\n")
    forge.git("fleet", "pull", "-q", "origin", "main")
    done = act("check", "push", {"ref": "refs/heads/main"}, "--var", "NIXHERD_CHECK=--only definitions")
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "::error file=hosts.nix,line=1,title=definitions::dev: is an integer" in output
    assert (forge.root / "kept/junit.xml").exists(), output


def test_a_plan_is_a_comment_of_nothing_but_text(forge: Forge, act: Act) -> None:  # noqa: F811
    (forge.root / "bin").mkdir()
    for name, script in {
        "nixherd": "printf 'dev: changes\\r# loud @you\\n::set-output name=x::y\\n'; exit 1",
        "gh": f'for word; do file=$word; done; cp "$file" {forge.root}/comment; echo "$@" >{forge.root}/words',
    }.items():
        (forge.root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (forge.root / "bin" / name).chmod(0o755)
    head = {"sha": "a" * 40, "ref": "x", "repo": {"full_name": "me/fleet"}}
    payload = {"number": 7, "repository": {"full_name": "me/fleet"}, "pull_request": {"number": 7, "head": head}}
    words = ("--var", "NIXHERD_DEPLOY=true", "--env", "GITHUB_REPOSITORY=me/fleet")
    done = act("deploy", "pull_request", payload, *words)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    comment = (forge.root / "comment").read_text()
    assert comment.startswith(f"What {'a' * 40} would change:\n\n    dev: changes\n    # loud @you\n"), output
    assert "status 1" in comment


def test_with_an_app_it_is_a_pull_request_of_what_passed(forge: Forge, act: Act) -> None:  # noqa: F811
    data = forge.upstream("data")
    main = forge.tip
    (forge.root / "bin").mkdir()
    gh = forge.root / "bin/gh"
    gh.write_text(f'#!/bin/sh\n[ "$2" != create ] || echo made\necho "$GH_TOKEN $*" >>{forge.root}/words\n')
    gh.chmod(0o755)
    done = act("update", "schedule", None, "--var", "UPDATE_APP_ID=7", "-s", "UPDATE_APP_KEY=s3cr3t")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (forge.tip, forge.locked("flake-lock-update")["data"]) == (main, data)
    words = (forge.root / "words").read_text().splitlines()
    assert words[-1] == f"t pr merge made --repo {words[-1].split()[5]} --auto --merge --delete-branch" + (
        f" --match-head-commit {forge.judged[-1]}"
    )
    # somebody works on it: the step alone, the next day
    commit = forge.judged[-1]
    forge.git("fleet", "fetch", "-q", "origin", "flake-lock-update")
    forge.git("person", "fetch", "-q", "origin", "flake-lock-update")
    forge.git("person", "checkout", "-q", "-b", "theirs", "FETCH_HEAD")
    theirs = forge.commit("person", readme="mine")
    forge.git("person", "push", "-q", "origin", "HEAD:flake-lock-update")
    steps = yaml.safe_load((GITHUB / "workflows/update.yml").read_text())["jobs"]["update"]["steps"]
    script = next(step["run"] for step in steps if step.get("name", "").startswith("A pull request"))
    description = {"COMMIT": commit, "BRANCH": "main", "REPOSITORY": "me/fleet", "RUNNER_TEMP": str(forge.root)}
    path = f"{forge.root}/bin:{environment()['PATH']}"
    alone = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=forge.root,
        env={**environment(), **description, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 1
    assert alone.stdout.startswith("::error::the branch flake-lock-update has changes to more than flake.lock")
    assert forge.git("origin.git", "rev-parse", "flake-lock-update") == theirs
