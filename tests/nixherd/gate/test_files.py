"""Which files the gate checks, and in which version."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from nixherd.cli.main import run
from tests.conftest import MakeFleet
from tests.nixherd.gate.conftest import FORMATTED, QUICK, UNFORMATTED, UNUSED, Ask, found, git


def test_the_files_are_those_that_git_knows(fleet: Path, ask: Ask) -> None:
    (fleet / "unknown.nix").write_text(UNFORMATTED)
    (fleet / "a b.nix").write_text(UNFORMATTED)
    (fleet / "-x.nix").write_text(UNUSED)
    (fleet / "link.nix").symlink_to("unknown.nix")
    (fleet / ".gitignore").write_text("ignored.nix\n")
    (fleet / "ignored.nix").write_text("x: [(x == true)]\n")
    for count in range(9):  # more than are asked about one by one
        (fleet / f"n{count}.nix").write_text("1\n")
    assert ask(*QUICK)[0] == 0
    git(
        fleet,
        "add",
        "-f",
        "a b.nix",
        "link.nix",
        "ignored.nix",
        ".gitignore",
        "--",
        "-x.nix",
        *(f"n{count}.nix" for count in range(9)),
    )
    status, document = ask(*QUICK)
    assert (status, found(document)) == (
        1,
        [("alejandra", "a b.nix", None), ("deadnix", "-x.nix", 2), ("statix", "ignored.nix", 1)],
    )


def test_without_a_repository_all_that_is_there(
    make_fleet: MakeFleet, fleet: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_fleet(name="elsewhere")
    (other / "a.nix").write_text(UNFORMATTED)
    monkeypatch.setenv("FLEET", str(other))
    assert ("alejandra", "a.nix", None) in found(ask(*QUICK)[1])
    status, document = ask(*QUICK, "--changed")
    assert (status, {each["status"] for each in document["tools"]}) == (1, {"unknown", "not run"})


def test_what_is_committed_is_judged_not_what_lies_there(fleet: Path, ask: Ask) -> None:
    """Of a file that is staged, git's content; of others that are changed, theirs; nothing else, and nothing slow."""
    status, document = ask("--changed", "--without", "secrets")
    tools = {each["name"]: (each["status"], each["note"]) for each in document["tools"]}
    assert (status, tools["alejandra"], tools["definitions"][0]) == (0, ("ok", "0 files"), "ok")
    assert tools["builds"] == tools["flake"] == ("not run", "--changed")
    (fleet / "a.nix").write_text(UNFORMATTED)
    git(fleet, "add", "-A")
    (fleet / "a.nix").write_text(FORMATTED)  # mended, but that is not what would be committed
    (fleet / "hosts/dev/home.nix").write_text(UNUSED)
    assert found(ask("--changed", *QUICK)[1]) == [("alejandra", "a.nix", None), ("deadnix", "hosts/dev/home.nix", 2)]
    git(fleet, "add", "a.nix")
    assert found(ask("--changed", *QUICK)[1]) == [("deadnix", "hosts/dev/home.nix", 2)]


def test_changed_links_and_submodules_are_nobodys_files(fleet: Path, ask: Ask) -> None:
    """Another target of a link, another commit of a submodule: neither is a file of the fleet's that a tool takes."""
    (fleet / "l.nix").symlink_to("hosts.nix")
    commit = git(fleet, "rev-parse", "HEAD").strip()
    (fleet / "sub").mkdir()
    git(fleet / "sub", "init", "-q")
    git(fleet / "sub", "commit", "-q", "--allow-empty", "-m", "x")
    git(fleet, "add", "l.nix")
    git(fleet, "update-index", "--add", "--cacheinfo", f"160000,{commit},the fleet/sub")
    git(fleet, "commit", "-qm", "y")
    (fleet / "l.nix").unlink()
    (fleet / "l.nix").symlink_to("flake.nix")
    (fleet / "a.nix").write_text(UNFORMATTED)
    git(fleet, "add", "a.nix")
    status, document = ask("--changed", *QUICK)
    assert (status, found(document)) == (1, [("alejandra", "a.nix", None)])


def test_a_name_that_is_no_utf8_is_not_passed_over(fleet: Path, ask: Ask) -> None:
    Path(os.fsdecode(os.fsencode(fleet) + b"/b\xff.nix")).write_text(UNFORMATTED)
    git(fleet, "add", "-A")
    status, document = ask("--only", "alejandra", "--only", "deadnix")
    assert (status, {each["status"] for each in document["tools"]}) == (1, {"unknown", "not run"})


def test_a_file_that_is_not_merged_is_looked_at_once(fleet: Path, ask: Ask) -> None:
    git(fleet, "checkout", "-qb", "other")
    for branch, text in (("other", "{a = 1;}\n"), ("-", "{a = 2;}\n")):
        if branch == "-":
            git(fleet, "checkout", "-q", branch)
        (fleet / "m.nix").write_text(text)
        git(fleet, "add", "m.nix")
        git(fleet, "commit", "-qm", "x")
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "merge", "-q", "other"], cwd=fleet)
    status, document = ask("--only", "merge", "--only", "alejandra")
    assert (status, found(document)) == (1, [("alejandra", "m.nix", 1), ("merge", "m.nix", 1)])


def test_no_file_at_all_is_not_ok(fleet: Path, ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    git(fleet, "rm", "-rq", "--cached", ".")
    status, document = ask(*QUICK)
    assert (status, {each["status"] for each in document["tools"]}) == (1, {"unknown", "not run"})
    for words in (["fmt"], ["fmt", "--check"], ["lint"], ["fmt", str(fleet / "vms")]):
        assert run(words) == 2
        assert "git knows no Nix file there" in capfd.readouterr().err


def test_a_private_key_is_found_wherever_it_lies(fleet: Path, ask: Ask) -> None:
    pem = "-----BEGIN OPENSSH {} KEY-----\nx\n"
    (fleet / "hosts/dev/key").write_text(pem.format("PRIVATE"))
    (fleet / "hosts/dev/key.pub").write_text(pem.format("PUBLIC"))
    (fleet / "a.txt").write_text("# created\nAGE-SECRET-KEY-1" + "Q" * 58 + "\n")
    git(fleet, "add", "-A")
    for words in ((), ("--changed",)):
        status, document = ask("--only", "secrets", *words)
        assert (status, found(document)) == (1, [("secrets", "a.txt", 2), ("secrets", "hosts/dev/key", 1)])


def test_a_report_leaves_a_device_and_a_link_what_they_are(fleet: Path, ask: Ask, tmp_path: Path) -> None:
    pipe, link, kept = tmp_path / "pipe", tmp_path / "link", tmp_path / "kept"
    os.mkfifo(pipe)
    kept.write_text("old")
    link.symlink_to(kept)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    assert ask("--only", "merge", "--junit", str(pipe), "--sarif", str(link))[0] == 0
    assert (reader.communicate()[0].startswith("<?xml"), pipe.is_fifo()) == (True, True)
    assert (link.is_symlink(), json.loads(kept.read_text())["version"]) == (True, "2.1.0")
    assert run(["check", "--only", "merge", "--junit", str(tmp_path)]) == 4
