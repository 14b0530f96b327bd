"""The fleet's workflows: what actionlint says, and what it overlooks: rights, pins, forks, and words of others."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.places import cache_directory
from lab.setup import golang

FLEET = Path(__file__).parents[2] / "fleet"
GITHUB = FLEET / ".github"
WORKFLOWS = {file.stem: file.read_text() for file in (GITHUB / "workflows").glob("*.yml")}
ACTION = (GITHUB / "actions/nixherd/action.yml").read_text()
# Every right to write, and whose it is.
MAY_WRITE = {
    ("check", "code-scanning"): {"security-events"},
    ("deploy", "comment"): {"pull-requests"},
    ("update", "deploy"): {"actions"},
    ("update", "update"): {"contents"},
}
OWN = "github.event.pull_request.head.repo.full_name == github.repository"
NO_PULL_REQUEST = "github.event_name != 'pull_request'"
SCHEDULE_OR = "github.event_name == 'schedule' || github.ref_name == github.event.repository.default_branch"
# Events that a stranger may cause, with the repository's own rights.
STRANGERS = {"pull_request_target", "issue_comment", "issues", "workflow_run", "discussion", "fork", "watch"}


def steps_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document.get("steps", ()))


def wrong(name: str, text: str) -> Iterator[str]:
    """What is wrong with a workflow of that name."""
    document = yaml.safe_load(text)
    events = document[True]  # `on` is a boolean in YAML 1.1
    yield from pins(text)
    yield from (f"on {event}" for event in STRANGERS & set(events))
    if "schedule" in events and "github.event." in text.replace(SCHEDULE_OR, ""):
        yield "the event of a schedule says nothing of the repository"
    if document.get("permissions") != {}:
        yield "rights for all jobs"
    for id, job in document["jobs"].items():
        words = " ".join(str(job.get("if", "")).split())
        is_for_own = OWN in words or NO_PULL_REQUEST in words or "pull_request" not in events
        rights = job.get("permissions")
        if not isinstance(rights, dict):
            yield f"{id}: no rights of its own"
        elif {each for each, value in rights.items() if value != "read"} != MAY_WRITE.get((name, id), set()):
            yield f"{id}: may write"
        if "self-hosted" in str(job["runs-on"]) and not is_for_own:
            yield f"{id}: forks on the self-hosted runner"
        if "secrets." in json.dumps(job) and not is_for_own:
            yield f"{id}: secrets for forks"
        if "timeout-minutes" not in job:
            yield f"{id}: no timeout"
        yield from expressions(steps_of(job))
        for step in steps_of(job):
            kept = step.get("with", {}).get("persist-credentials", True)
            if step.get("uses", "").startswith("actions/checkout@") and kept and (name, id) != ("update", "update"):
                yield f"{id}: the token is kept for later steps"


def pins(text: str) -> Iterator[str]:
    for line in re.findall(r"uses:.*", text):
        if not re.fullmatch(r"uses: (\./.*|[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)", line):
            yield f"not pinned: {line}"


def expressions(steps: list[dict[str, Any]]) -> Iterator[str]:
    """What anybody wrote would be program text."""
    for step in steps:
        if "${{" in step.get("run", ""):
            yield f"an expression in a program: {step.get('name')}"


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_gives_nobody_more_than_it_must(name: str) -> None:
    assert list(wrong(name, WORKFLOWS[name])) == []


def test_the_action_of_all_of_them(tmp_path: Path) -> None:
    assert [*pins(ACTION), *expressions(steps_of(yaml.safe_load(ACTION)["runs"]))] == []
    assert sorted(WORKFLOWS) == ["check", "deploy", "update"]
    versions = set(re.findall(r"uses: ([\w./-]+)@(\w+) # (\S+)", ACTION + "".join(WORKFLOWS.values())))
    assert len(versions) == len({action for action, _, _ in versions}), "one action, two versions"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("check", "@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6", "not pinned: uses: actions/checkout@v6"),
        ("check", " # v6.0.2", "", "not pinned: uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd"),
        ("check", "permissions: {}", "permissions: {contents: write}", "rights for all jobs"),
        ("check", "      contents: read\n    steps", "      contents: write\n    steps", "check: may write"),
        ("check", "  pull_request:", "  pull_request_target:", "on pull_request_target"),
        ("check", '"$WORDS"', '"${{ github.event.pull_request.title }}"', "an expression in a program: nixherd check"),
        ("check", "${{ vars.NIXHERD_CHECK }}", "${{ secrets.X }}", "check: secrets for forks"),
        (
            "check",
            "runs-on: ubuntu-latest\n    timeout-minutes: 180",
            "runs-on: [self-hosted, nix]",
            "check: no timeout",
        ),
        (
            "update",
            "github.event_name == 'schedule' || ",
            "",
            "the event of a schedule says nothing of the repository",
        ),
        ("deploy", f"\n      && {OWN}", "", "plan: forks on the self-hosted runner"),
        ("deploy", " && github.event_name != 'pull_request'", "", "deploy: secrets for forks"),
        ("deploy", "          persist-credentials: false\n", "", "plan: the token is kept for later steps"),
    ],
)
def test_what_would_be_wrong_is_found(name: str, old: str, new: str, message: str) -> None:
    assert old in WORKFLOWS[name]
    assert message in list(wrong(name, WORKFLOWS[name].replace(old, new)))


def test_a_deployment_is_protected_and_never_ended_in_the_middle() -> None:
    jobs = yaml.safe_load(WORKFLOWS["deploy"])["jobs"]
    assert jobs["deploy"]["environment"] == "production"
    assert jobs["deploy"]["concurrency"] == {"group": "deploy", "cancel-in-progress": False}
    assert jobs["comment"]["runs-on"] == "ubuntu-latest"  # beside nothing that a pull request brought
    assert [step["uses"].split("@")[0] for step in jobs["comment"]["steps"] if "uses" in step] == [
        "actions/download-artifact"
    ]


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    try:
        program = golang.program(cache_directory(), golang.ACTIONLINT, 1)
    except golang.GoMissing as why:
        pytest.skip(str(why))
    lint: list[str | Path] = [
        program,
        "-shellcheck=",
        "-pyflakes=",
        "-no-color",
        "-config-file",
        GITHUB / "actionlint.yaml",
    ]
    files = sorted((GITHUB / "workflows").glob("*.yml"))
    done = subprocess.run([*lint, *files], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    planted = tmp_path / "planted.yml"
    planted.write_text(WORKFLOWS["check"].replace("needs: check", "needs: chek"))
    done = subprocess.run([*lint, planted], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "chek" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("event", "head", "status"),
    [
        ("push", None, 0),
        ("workflow_dispatch", None, 0),
        ("pull_request", "me/fleet", 0),
        ("pull_request", "you/fleet", 1),
        ("pull_request", None, 1),
        ("pull_request_target", "me/fleet", 1),
        ("issue_comment", None, 1),
        ("", None, 1),
    ],
)
def test_the_runner_itself_takes_nothing_of_a_fork(tmp_path: Path, event: str, head: str | None, status: int) -> None:
    payload = {
        "repository": {"full_name": "me/fleet"},
        "pull_request": {"head": {"repo": {"full_name": head} if head else None}},
    }
    (tmp_path / "event").write_text(json.dumps(payload))
    jq = tmp_path / "jq"  # as much of it as the program asks for, so that no test needs it
    jq.write_text(
        "#!/usr/bin/env python3\nimport functools, json, sys\n"
        "path = sys.argv[2].split(' ')[0].strip('.').split('.')\n"
        "get = lambda value, key: (value or {}).get(key)\n"
        "print(functools.reduce(get, path, json.load(open(sys.argv[3]))) or '')\n"
    )
    jq.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_EVENT_PATH": str(tmp_path / "event")}
    program = FLEET / "modules/nixos/homelab/refuse-forks.sh"
    done = subprocess.run(
        ["bash", "-e", program], env={**environment, "GITHUB_EVENT_NAME": event}, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.startswith("::error::this runner takes no job of") == bool(status)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("event", "jq"),
    [("not json", "#!/bin/sh\nexit 2\n"), ("{}", "#!/bin/sh\n"), ("{}", None), (None, "#!/bin/sh\nexit 2\n")],
)
def test_what_the_runner_cannot_read_is_nobodys(tmp_path: Path, event: str | None, jq: str | None) -> None:
    if event is not None:
        (tmp_path / "event").write_text(event)
    if jq is not None:
        (tmp_path / "jq").write_text(jq)
        (tmp_path / "jq").chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    program = FLEET / "modules/nixos/homelab/refuse-forks.sh"
    document = {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(tmp_path / "event"),
        "PATH": str(tmp_path),
    }
    done = subprocess.run([bash, "-e", program], env=document, capture_output=True)
    assert done.returncode != 0


def run_of(steps: list[dict[str, Any]], name: str) -> str:
    return str(next(step["run"] for step in steps if step.get("name") == name))


@pytest.mark.parametrize(
    ("repository", "revision", "file", "status", "message"),
    [
        ("", "", None, 0, "repository=\nrevision=\n"),
        ("me/nixherd", "a" * 40, None, 0, f"repository=me/nixherd\nrevision={'a' * 40}\n"),
        # what a fork's pull request is given, which has no variables
        ("", "", f"me/nixherd {'b' * 40}\n", 0, f"repository=me/nixherd\nrevision={'b' * 40}\n"),
        ("me/nixherd", "a" * 40, f"you/nixherd {'b' * 40}", 0, f"repository=me/nixherd\nrevision={'a' * 40}\n"),
        ("me/nixherd", "main", None, 1, "::error::NIXHERD_REVISION is not a full commit hash (source: the variables)"),
        ("me/nixherd", "", None, 1, "::error::NIXHERD_REVISION is not a full commit hash (source: the variables)"),
        ("https://github.com/me/nixherd", "a" * 40, None, 1, "::error::NIXHERD_REPOSITORY is not OWNER/NAME"),
        (
            "",
            "",
            "me/nixherd main\n",
            1,
            "::error::NIXHERD_REVISION is not a full commit hash (source: fleet/.github/",
        ),
        ("", "", "\n", 0, "repository=\nrevision=\n"),
    ],
)
def test_which_nixherd(
    tmp_path: Path, repository: str, revision: str, file: str | None, status: int, message: str
) -> None:
    if file is not None:
        (tmp_path / "fleet/.github").mkdir(parents=True)
        (tmp_path / "fleet/.github/nixherd").write_text(file)
    output = tmp_path / "output"
    output.touch()
    env = {**os.environ, "REPOSITORY": repository, "REVISION": revision, "GITHUB_OUTPUT": str(output)}
    script = run_of(yaml.safe_load(ACTION)["runs"]["steps"], "Which nixherd")
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert message in output.read_text() + done.stdout


def test_a_comment_is_of_a_size_that_is_taken_and_nothing_but_text(tmp_path: Path) -> None:
    (tmp_path / "gh").write_text("#!/bin/sh\n")
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "plan.txt").write_bytes(b"dev: x\r# loud @you\n" + b"\n" * 50000)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COMMIT": "a", "NUMBER": "7", "REPOSITORY": "me/fleet"}
    script = run_of(steps_of(yaml.safe_load(WORKFLOWS["deploy"])["jobs"]["comment"]), "The plan as a comment")
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, check=True)
    comment = (tmp_path / "comment.md").read_bytes()
    assert comment.startswith(b"What a would change:\n\n    dev: x\n    # loud @you\n")
    assert b"\r" not in comment
    assert len(comment) < 65536


def test_the_pull_request_of_an_update_is_our_own_and_what_passed_the_gate() -> None:
    step = run_of(
        steps_of(yaml.safe_load(WORKFLOWS["update"])["jobs"]["update"]),
        "A pull request, merged once its checks have passed",
    )
    assert "select(.isCrossRepository | not)" in step  # a fork's may be of a branch of the same name
    assert '--match-head-commit "$COMMIT"' in step
    names = [step.get("id") for step in steps_of(yaml.safe_load(WORKFLOWS["update"])["jobs"]["update"])]
    assert names.index("update") < names.index("app")  # a token of an hour, after a gate of hours


def test_what_others_wrote_is_no_command_to_the_runner() -> None:
    for name, job, step in (
        ("update", "update", "nixherd lock update"),
        ("deploy", "plan", "nixherd plan"),
        ("deploy", "deploy", "nixherd deploy"),
    ):
        lines = run_of(steps_of(yaml.safe_load(WORKFLOWS[name])["jobs"][job]), step).splitlines()
        output = next(
            n for n, line in enumerate(lines) if line.startswith(("nixherd ", "cat ")) and "plan --" not in line
        )
        assert lines.index('echo "::stop-commands::$mute"') < output < lines.index('echo "::$mute::"')
