"""`nixherd lock update` with real git and real Nix, and a gate of a line."""

import json
import subprocess

import pytest

from nixherd.cli.main import run
from tests.nix_cli import environment
from tests.nixherd.gate.lock.conftest import Forge

pytestmark = pytest.mark.nix

MERGE = ("--merge-into", "main", "--push")


def test_what_passes_the_gate_is_merged_and_nothing_moved_makes_no_commit(forge: Forge) -> None:
    before, old = forge.tip, forge.locked()
    ended = forge.update(*MERGE)
    assert (ended.brief(), forge.tip) == ((0, [], [], []), before)
    assert ended.json["commit"] is None
    assert forge.judged == []

    new = {name: forge.upstream(name) for name in ("base", "data", "tool")}
    ended = forge.update(*MERGE, "--summary", str(forge.root / "summary.md"))
    assert ended.brief() == (0, ["base", "data", "tool"], [], []), ended.err
    assert (forge.locked(), forge.judged) == (new, [forge.tip])
    assert ended.json["commit"] == forge.tip
    assert ended.json["at"] == "origin/main"
    assert forge.git("origin.git", "rev-parse", "main^") == before
    assert forge.git("origin.git", "diff", "--name-only", before, "main") == "flake.lock"
    subject, _, body = forge.git("origin.git", "log", "-1", "--format=%B", "main").partition("\n\n")
    assert subject == "flake.lock: update base, data, tool"
    assert f"- data: {old['data'][:7]} (" in body
    assert f"→ {new['data'][:7]} (" in body
    summary = (forge.root / "summary.md").read_text()
    assert f"| `tool` | `{old['tool'][:7]} (" in summary
    # it is Nix's own lock file, byte for byte: Nix finds nothing to do
    forge.git("person", "pull", "-q", "origin", "main")
    subprocess.run(["nix", "flake", "lock", forge.root / "person"], env=environment(), check=True)
    assert forge.git("person", "status", "--porcelain") == ""
    assert forge.git("fleet", "branch", "--list", "flake-lock-update") == ""


@pytest.mark.slow
def test_what_breaks_is_left_behind_and_named_and_the_rest_goes_on(forge: Forge) -> None:
    old = forge.locked()
    forge.upstream("tool", bad="tool has no lid")
    base, data = forge.upstream("base"), forge.upstream("data")
    ended = forge.update(*MERGE, "--summary", str(forge.root / "summary.md"))
    assert ended.brief() == (1, ["base", "data"], ["tool"], [])
    assert "left behind: tool: tool has no lid" in ended.err
    assert forge.locked() == {"base": base, "data": data, "tool": old["tool"]}
    assert forge.tip in forge.judged
    summary = (forge.root / "summary.md").read_text()
    assert "## Left behind: `tool`\n\nIt stops at the gate:\n\n```text\ntool has no lid\n```" in summary
    # Nix takes what was put together, as it is
    forge.git("person", "pull", "-q", "origin", "main")
    subprocess.run(
        ["nix", "flake", "metadata", "--no-update-lock-file", forge.root / "person"], env=environment(), check=True
    )
    # the same day again: there is only what stops
    tip = forge.tip
    ended = forge.update(*MERGE)
    assert (ended.brief(), forge.tip) == ((1, [], ["tool"], []), tip)
    forge.upstream("tool")
    assert forge.update(*MERGE).brief() == (0, ["tool"], [], [])


@pytest.mark.slow
def test_a_group_goes_or_stays_as_one_and_one_that_needs_another_goes_with_it(forge: Forge) -> None:
    old = forge.locked()
    forge.upstream("base", bad="base is broken")
    new = forge.upstream("data"), forge.upstream("tool")
    ended = forge.update(*MERGE, "--group", "both=base,data")
    assert ended.brief() == (1, ["tool"], ["base", "data"], [])
    assert ended.json["left_behind"] == [{"group": "both", "inputs": ["base", "data"], "reasons": ["base is broken"]}]
    assert forge.locked() == {"base": old["base"], "data": old["data"], "tool": new[1]}
    # base with yesterday's data does not pass, which is tried first; with today's it does
    (forge.root / "bad").write_text("")
    forge.upstream("tool", bad="tool is broken")
    needs = f"if ! grep -q {new[0]} flake.lock; then grep -q {old['base']} flake.lock; fi; "
    ended = forge.update(*MERGE, gate=f"set -e; {needs}{forge.gate}")
    assert ended.brief() == (1, ["base", "data"], ["tool"], [])


@pytest.mark.slow
def test_the_fleet_itself_is_not_blamed_on_an_input(forge: Forge) -> None:
    tip = forge.tip
    forge.upstream("data")
    ended = forge.update(*MERGE, gate="echo 'error: hosts.nix: no such user' >&2; false")
    assert (ended.status, forge.tip) == (4, tip)
    assert "origin/main itself stops at the gate, so nothing is updated: hosts.nix: no such user" in ended.err
    ended = forge.update(*MERGE, gate="no-such-gate")
    assert (ended.status, forge.tip) == (4, tip)
    assert "the gate gives no answer, about origin/main as it is neither: " in ended.err
    ended = forge.update(*MERGE, gate="echo >>flake.nix")
    assert (ended.status, forge.tip) == (4, tip)
    assert "the gate changed flake.nix: what it judged is not what would be merged" in ended.err
    # without its .git the tree would be one of whatever repository is around it
    forge.git(".", "init", "-q", "state")
    (forge.root / "state/theirs").touch()
    ended = forge.update(*MERGE, gate="rm -rf .git")
    assert (ended.status, forge.tip, (forge.root / "state/theirs").exists()) == (4, tip, True)
    assert "is not a work tree of git any more" in ended.err


@pytest.mark.slow
def test_the_gate_is_nixherd_check_unless_another_is_said(forge: Forge) -> None:
    forge.upstream("data")
    assert forge.capture
    forge.capture.readouterr()
    assert run(["lock", "update", *MERGE]) == 4
    said = forge.capture.readouterr().err
    assert "origin/main itself stops at the gate, so nothing is updated: " in said
    assert "flake.nix: it has neither nixosConfigurations nor" in said  # they are check's own words


def test_the_gate_knows_nothing_of_what_pushes(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    forge.upstream("data")
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "GITHUB_OUTPUT", "ACTIONS_RUNTIME_TOKEN", "NPM_TOKEN", "GIT_ASKPASS"):
        monkeypatch.setenv(name, "s3cret")
    ended = forge.update(*MERGE, gate='env >ROOT/env; test "$FLEET" = "$PWD"'.replace("ROOT", str(forge.root)))
    assert ended.status == 0, ended.err
    seen = (forge.root / "env").read_text()
    assert "s3cret" not in seen
    assert "PATH=" in seen


def test_an_input_that_nobody_can_look_up_is_unknown_and_the_rest_goes_on(forge: Forge) -> None:
    old = forge.locked()
    data = forge.upstream("data")
    (forge.root / "tool").rename(forge.root / "away")
    ended = forge.update(*MERGE)
    assert ended.brief() == (5, ["data"], [], ["tool"])
    why = ended.json["unknown"]["tool"]
    assert "while" not in why  # what Nix was doing is left out, the reason is not
    assert "not found" in why
    assert f"unknown, not updated: tool: {why}" in ended.err
    assert forge.locked() == {**old, "data": data}
    ended = forge.update(*MERGE)
    assert ended.brief() == (5, [], [], ["tool"])
    assert forge.update(*MERGE, "--table").out == "nothing that may go has moved\n"


@pytest.mark.slow
def test_on_a_race_it_is_done_again_and_judged_again(forge: Forge) -> None:
    data = forge.upstream("data")
    push = f"cd {forge.root}/person && git pull -q origin main && date >>readme"
    push += " && git commit -qam theirs && git push -q origin HEAD:main"
    once = f"rm {forge.root}/first 2>/dev/null && ({push}); "
    (forge.root / "first").touch()
    ended = forge.update(*MERGE, gate=once + forge.gate)
    assert ended.brief() == (0, ["data"], [], []), ended.err
    assert "origin/main moved meanwhile: once more on that" in ended.err
    subjects = forge.git("origin.git", "log", "-2", "--format=%s", "main").splitlines()
    assert subjects == ["flake.lock: update data", "theirs"]
    assert (forge.locked()["data"], forge.judged[-1], len(forge.judged)) == (data, forge.tip, 2)
    # and not for ever
    forge.upstream("data")
    ended = forge.update(*MERGE, "--tries", "2", gate=f"({push}); {forge.gate}")
    assert ended.status == 4
    assert "origin/main moved, 2 times while the gate ran; run it again later" in ended.err
    assert forge.git("origin.git", "log", "-1", "--format=%s", "main") == "theirs"


def test_a_race_with_the_same_update_ends_with_theirs(forge: Forge) -> None:
    forge.upstream("data")
    (forge.root / "first").touch()
    script = (
        f"if rm {forge.root}/first 2>/dev/null; then cp flake.lock {forge.root}/person/; cd {forge.root}/person;"
        " git commit -qam theirs && git push -q origin HEAD:main; fi"
    )
    ended = forge.update(*MERGE, gate=script)
    assert ended.brief() == (0, [], [], []), ended.err
    assert forge.git("origin.git", "log", "-1", "--format=%s", "main") == "theirs"


def test_a_branch_alone_is_made_anew_while_it_is_ours(forge: Forge) -> None:
    tip = forge.tip
    forge.upstream("data")
    ended = forge.update("--push")
    assert (ended.status, ended.json["at"]) == (0, "origin/flake-lock-update"), ended.err
    data = forge.upstream("data")
    ended = forge.update("--push")
    assert (ended.status, forge.tip) == (0, tip), ended.err
    assert forge.locked("flake-lock-update")["data"] == data
    assert forge.git("origin.git", "rev-list", "--count", "main..flake-lock-update") == "1"
    # somebody works on it
    forge.git("person", "fetch", "-q", "origin", "flake-lock-update")
    forge.git("person", "checkout", "-q", "-b", "theirs", "FETCH_HEAD")
    forge.commit("person", readme="mine")
    forge.git("person", "push", "-q", "origin", "HEAD:flake-lock-update")
    ended = forge.update("--push")
    assert ended.status == 4
    assert "the branch origin/flake-lock-update exists, and has changes to readme; merge or delete it" in ended.err
    assert forge.update("--push", "--branch", "updates").json["at"] == "origin/updates"


@pytest.mark.slow
def test_without_a_remote_it_stays_here(forge: Forge) -> None:
    forge.git("fleet", "remote", "remove", "origin")
    main = forge.git("fleet", "rev-parse", "main")
    forge.upstream("data")
    ended = forge.update()
    assert (ended.status, ended.json["at"]) == (0, "flake-lock-update"), ended.err
    assert forge.git("fleet", "rev-parse", "flake-lock-update^") == main
    # main is checked out: it moves with its files, as by git merge
    ended = forge.update("--merge-into", "main")
    assert (ended.status, ended.json["at"]) == (0, "main"), ended.err
    assert forge.git("fleet", "rev-parse", "main") == ended.json["commit"]
    forge.git("fleet", "checkout", "-q", "-b", "other")
    forge.upstream("data")
    ended = forge.update("--merge-into", "main")
    assert forge.git("fleet", "rev-parse", "main") == ended.json["commit"]
    assert forge.git("fleet", "rev-parse", "main^") == forge.git("fleet", "rev-parse", "other")


def test_a_fleet_below_its_repository_is_updated_there(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    forge.git("fleet", "checkout", "-q", "main")
    (forge.root / "fleet/nix").mkdir()
    forge.git("fleet", "mv", "flake.nix", "flake.lock", "nix/")
    forge.git("fleet", "commit", "-qm", "below")
    monkeypatch.setenv("FLEET", str(forge.root / "fleet/nix"))
    forge.upstream("data")
    ended = forge.update("--merge-into", "main")
    assert ended.brief() == (0, ["data"], [], []), ended.err
    assert forge.git("fleet", "show", "--name-only", "--format=", "main") == "nix/flake.lock"


@pytest.mark.parametrize(
    ("words", "script", "status", "said"),
    [
        (("--push",), "git remote remove origin", 2, "no remote is called origin; `git remote add`, or --remote NAME"),
        (("--push", "--remote", "up"), "", 2, "no remote is called up; there is origin; "),
        ((), "git checkout -q --detach", 2, "HEAD is not on a branch; say with --base BRANCH"),
        ((), "echo >>flake.lock", 4, "flake.lock: has changes that are not committed; commit it, or `git restore"),
        (("--merge-into", "other"), "", 4, "branch other does not exist"),
        (("--merge-into", "other", "--push"), "", 4, "branch origin/other does not exist"),
        (("--branch", "main"), "", 2, "--branch main: the update needs a branch of its own"),
        (("--branch", "a b"), "", 2, "'a b' is not a name of a branch"),
        ((), "git checkout -qb flake-lock-update; git branch -q x", 2, "the update needs a branch of its own"),
        (
            ("--base", "main"),
            "git checkout -qb flake-lock-update",
            4,
            "the branch flake-lock-update is checked out in ",
        ),
        (
            (),
            "git checkout -qb flake-lock-update; echo >>readme; git commit -qam x; git checkout -q main",
            4,
            "the branch flake-lock-update exists, and has changes to readme; merge or delete it, or say --branch NAME",
        ),
        ((), "git rm -q flake.lock; git commit -qm x", 4, "flake.lock of main: missing; `nix flake lock` there"),
        (
            (),
            "(echo '<<<<<<< HEAD'; cat flake.lock) >l; mv l flake.lock; git commit -qam x",
            4,
            "flake.lock of main:1: an unsolved conflict is committed there",
        ),
        ((), "echo '{\"nodes\": {}}' >flake.lock; git commit -qam x", 4, "flake.lock of main: is not a lock file ("),
        ((), "ln -sf flake.nix flake.lock; git commit -qam x", 4, "flake.lock of main: is a symbolic link"),
        ((), "sed -i /data/d flake.nix; git commit -qam x", 4, "flake.lock of main: does not fit its flake.nix, or "),
        ((), "sed -i 's/{/{ # ${/' flake.nix; sed -i 1d flake.nix; git commit -qam x", 4, "of main: does not fit its "),
        (
            (),
            "printf 'a\\r\\n' >x; git add x; git commit -qm x; echo '* text' >.gitattributes; git add .gitattributes;"
            " git commit -qm y",
            4,
            "x: is not as it is committed once it is checked out (line ends, a filter?); `git add --renormalize .`",
        ),
        (("--summary", "no/such"), "", 4, "no/such: No such file or directory"),
        (("nothing",), "", 2, "flake.nix locks no input 'nothing'; there is base, data, tool"),
        (("--group", "x"), "", 2, "--group x: write NAME=INPUT,INPUT"),
        (("--group", "x=data", "--group", "y=data"), "", 2, "data is in the group x already"),
        (("--group", "x=data", "data"), "", 2, "data moves with the group x; name that one"),
        (("--push",), "rm -rf ../origin.git", 4, "origin: cannot be asked for main: "),
        ((), "rm -rf .git", 2, "is not in a git repository; an update is a commit"),
    ],
)
def test_what_is_in_the_way_is_said_in_a_line(
    copied: Forge, words: tuple[str, ...], script: str, status: int, said: str
) -> None:
    subprocess.run(["sh", "-ec", script or ":"], cwd=copied.root / "fleet", check=True)
    assert copied.capture
    copied.capture.readouterr()
    assert run(["lock", "update", *words]) == status
    out, err = copied.capture.readouterr()
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)


def test_a_branch_that_takes_no_push_is_said_and_the_commit_is_kept(forge: Forge) -> None:
    hook = forge.root / "origin.git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2; exit 1\n")
    hook.chmod(0o755)
    forge.upstream("data")
    ended = forge.update(*MERGE)
    assert ended.status == 4
    assert "origin: main takes no push: main is protected" in ended.err
    assert forge.git("fleet", "rev-parse", "flake-lock-update") == forge.judged[-1]


def test_what_became_of_a_push_is_read_back_or_unknown(copied: Forge) -> None:
    from nixherd.base.errors import Undecided
    from nixherd.fleet.git import Repository
    from nixherd.gate.lock.run import Remote

    repository = Repository.around(copied.root / "fleet")
    assert repository
    tip, new = copied.tip, copied.commit("fleet", readme="new")
    copied.git("fleet", "clone", "-q", "--bare", ".", "../other.git")
    copied.git("fleet", "config", "remote.origin.pushurl", str(copied.root / "other.git"))
    with pytest.raises(Undecided, match=r"took the push of .* as it says, and main is where it was"):
        Remote(repository, "origin").move("main", tip, new)
    assert copied.tip == tip
    copied.git("fleet", "config", "--unset", "remote.origin.pushurl")
    hook = copied.root / "origin.git/hooks/post-receive"
    hook.write_text('#!/bin/sh\nmv "$PWD" ../away.git\n')
    hook.chmod(0o755)
    with pytest.raises(Undecided, match=rf"{new} was pushed to main.* and then origin: cannot be asked for main"):
        Remote(repository, "origin").move("main", tip, new)
    assert copied.git("away.git", "rev-parse", "main") == new


def test_who_commits_has_to_be_known_where_the_operator_can_say_it(
    copied: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    copied.git("fleet", "config", "user.useConfigOnly", "true")
    assert copied.capture
    assert run(["lock", "update"]) == 4
    said = f"{copied.root / 'fleet'}: git does not know who commits; `git config user.name …`"
    assert said in copied.capture.readouterr().err


def test_what_others_took_off_the_branch_meanwhile_does_not_come_back(copied: Forge) -> None:
    from nixherd.fleet.git import Repository
    from nixherd.gate.lock.run import Moved, Remote

    before, bad = copied.tip, copied.commit("fleet", readme="bad")
    copied.git("fleet", "push", "-q", "origin", "main")
    repository = Repository.around(copied.root / "fleet")
    assert repository
    new = copied.commit("fleet", readme="on that")
    copied.git("origin.git", "update-ref", "refs/heads/main", before)
    with pytest.raises(Moved):
        Remote(repository, "origin").move("main", bad, new)
    assert copied.tip == before


def test_commits_are_signed_where_the_fleet_requires_it(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    from nixherd.cli import lock as command

    monkeypatch.setattr(command, "_must_be_signed", lambda fleet: True)
    forge.upstream("data")
    tip = forge.tip
    ended = forge.update(*MERGE)
    assert (ended.status, forge.tip) == (4, tip)
    assert "git commit: the fleet requires signatures: " in ended.err
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", forge.root / "key"], check=True)
    forge.git("fleet", "config", "user.signingkey", str(forge.root / "key.pub"))
    ended = forge.update(*MERGE)
    assert ended.status == 0, ended.err
    assert "BEGIN SSH SIGNATURE" in forge.git("origin.git", "cat-file", "commit", "main")


def test_whether_they_must_be_is_what_hosts_nix_says(copied: Forge) -> None:
    from nixherd.cli.lock import _must_be_signed
    from tests.conftest import HOSTS_NIX

    assert not _must_be_signed(copied.root / "fleet")
    (copied.root / "fleet/hosts").mkdir()
    for name in ("dev", "proxmox-vm", "caddy"):
        (copied.root / "fleet/hosts" / name).mkdir()
        for file in ("configuration.nix", "home.nix"):
            (copied.root / "fleet/hosts" / name / file).write_text("{ }\n")
    hosts = HOSTS_NIX.replace('sshAlias = "dev";', 'sshAlias = "dev"; require_signed = true;', 1)
    (copied.root / "fleet/hosts.nix").write_text(hosts)
    assert _must_be_signed(copied.root / "fleet")
    (copied.root / "fleet/hosts.nix").unlink()
    (copied.root / "fleet/flake.nix").write_text("{ outputs = _: { nixosConfigurations.dev = { }; }; }\n")
    (copied.root / "fleet/nixherd.nix").write_text("{ hosts.dev.require_signed = true; }\n")
    assert _must_be_signed(copied.root / "fleet")


def test_json_says_what_moved(forge: Forge) -> None:
    old, new = forge.locked()["tool"], forge.upstream("tool")
    moved = forge.update("tool").json["moved"]
    assert [(each["input"], each["old"]["revision"], each["new"]["revision"]) for each in moved] == [("tool", old, new)]
    assert json.dumps(moved[0]["older"]) == "false"
