"""Which files the gate looks at, what it mends in them, and git's hook: in small repositories, with the real tools."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.gate.files import Place
from nixherd.gate.programs import statix
from tests.conftest import MakeFleet
from tests.gate_programs import path, programs, stand_in, write

ROOT = Path(__file__).parents[3]
QUICK = ("--only", "alejandra", "--only", "deadnix", "--only", "statix", "--only", "merge")
UNFORMATTED = "{a=1;}\n"
FORMATTED = "{a = 1;}\n"
UNUSED = "{lib}: let\n  unused = 1;\nin\n  lib\n"


def git(directory: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *who, *words], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_fleet: MakeFleet) -> Path:
    """One in a subdirectory of its repository, formatted and committed; the tools are on PATH."""
    built = programs()
    for name in ("GITHUB_ACTIONS", "GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", path(built, stand_in(tmp_path / "bin")))
    directory = make_fleet(name="my repo/the fleet")
    subprocess.run([built / "alejandra", "--quiet", directory], check=True)
    monkeypatch.setenv("FLEET", str(directory))
    git(directory.parent, "init", "-q")
    git(directory.parent, "add", "-A")
    git(directory.parent, "commit", "-qm", "x")
    return directory


Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Ask:
    def check(*words: str) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        status = run(["check", "--json", *words])
        return status, json.loads(capfd.readouterr().out)

    return check


def found(document: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    return [(each["tool"], each["file"], each["line"]) for each in document["findings"]]


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


def test_fix_mends_and_checks_again(fleet: Path, ask: Ask) -> None:
    texts = {
        "a.nix": UNFORMATTED,
        "b c.nix": UNUSED,
        "d.nix": "x: [(x == true)]\n",
        "bad.nix": "{\n",
        "e.nix": FORMATTED,
    }
    for name, text in texts.items():
        (fleet / name).write_text(text)
    (fleet / "a.nix").chmod(0o755)
    untouched = (fleet / "e.nix").stat().st_ino
    git(fleet, "add", "-A")
    status, document = ask(*QUICK, "--fix")
    assert (status, {each["file"] for each in document["findings"]}) == (1, {"bad.nix"})
    assert (fleet / "a.nix").read_text() == FORMATTED
    assert (fleet / "a.nix").stat().st_mode & 0o777 == 0o755
    assert "unused" not in (fleet / "b c.nix").read_text()
    assert "true" not in (fleet / "d.nix").read_text()
    assert (fleet / "bad.nix").read_text() == "{\n"
    assert (fleet / "e.nix").stat().st_ino == untouched
    assert not list(fleet.rglob(".nixherd-*"))


def test_fmt(fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (fleet / "sub dir").mkdir()
    for name in ("a.nix", "sub dir/b.nix", "unknown.nix"):
        (fleet / name).write_text(UNFORMATTED)
    git(fleet, "add", "a.nix", "sub dir")
    monkeypatch.chdir(fleet / "sub dir")
    assert run(["fmt", "--check"]) == 1
    out, _ = capfd.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["a.nix", "sub dir/b.nix"]
    assert run(["fmt", "--diff", "b.nix"]) == 1
    assert capfd.readouterr().out.splitlines() == [
        *("--- a/sub dir/b.nix", "+++ b/sub dir/b.nix", "@@ -1 +1 @@", "-{a=1;}", "+{a = 1;}"),
    ]
    assert run(["fmt", "."]) == 0
    assert capfd.readouterr().out == "formatted sub dir/b.nix\n"
    assert run(["fmt"]) == 0
    assert capfd.readouterr().out == "formatted a.nix\n"
    assert run(["fmt", "../unknown.nix"]) == 0, "what is named is formatted, whether git knows it or not"
    assert {(fleet / name).read_text() for name in ("a.nix", "sub dir/b.nix", "unknown.nix")} == {FORMATTED}
    assert run(["fmt"]) == run(["fmt", "--check"]) == run(["fmt", "--diff"]) == 0
    (fleet / "a.nix").write_text("{\n  a = 1\n}\n")
    capfd.readouterr()
    assert run(["fmt"]) == 1
    assert capfd.readouterr().err.startswith("a.nix:3:1: does not parse: ")
    for words in (["fmt", "nowhere.nix"], ["fmt", "/etc"], ["fmt", "../../x"], ["lint", "--without", "statics"]):
        assert run(words) == 2
        assert capfd.readouterr().err.count("\n") == 1


def test_lint(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (fleet / "a.nix").write_text(UNUSED)
    (fleet / "b.nix").write_text("x: [(x == true)]\n")
    assert run(["lint", "--json", str(fleet / "a.nix"), str(fleet / "b.nix")]) == 1
    document = json.loads(capfd.readouterr().out)
    assert found(document) == [("deadnix", "a.nix", 2), ("statix", "b.nix", 1)]
    assert [each["name"] for each in document["tools"]] == ["deadnix", "statix"]
    assert run(["lint", "--fix", str(fleet / "a.nix"), str(fleet / "b.nix")]) == 0


def test_statix_that_panics_over_one_file_has_looked_at_the_others(fleet: Path, ask: Ask) -> None:
    for name in "abcdefghijk":
        (fleet / f"{name}.nix").write_text("x: [(x == true)]\n" if name in "ak" else "1\n")
    (fleet / "c.nix").write_text("# statix panics\n1\n")
    git(fleet, "add", "-A")
    status, document = ask("--only", "statix")
    [tool] = [each for each in document["tools"] if each["name"] == "statix"]
    assert (status, tool["status"], found(document)) == (
        1,
        "unknown",
        [("statix", "a.nix", 1), ("statix", "k.nix", 1)],
    )
    assert tool["reason"].startswith("c.nix: statix panicked")


def test_statix_is_asked_about_each_file_but_what_its_settings_ignore(fleet: Path, ask: Ask) -> None:
    """Also in a copy of what is changed, and by settings that are above the fleet, where statix finds them."""
    (fleet.parent / "statix.toml").write_text('ignore = ["gen/*", "!gen/kept.nix"]\n')
    for name in ("deep/deeper/a.nix", "gen/b.nix", "gen/kept.nix"):
        (fleet / name).parent.mkdir(parents=True, exist_ok=True)
        (fleet / name).write_text("x: [(x == true)]\n")
    git(fleet, "add", "-A")
    for words in ((), ("--changed",)):
        _, document = ask("--only", "statix", *words)
        [note] = [each["note"] for each in document["tools"] if each["name"] == "statix"]
        assert [each["file"] for each in document["findings"]] == ["deep/deeper/a.nix", "gen/kept.nix"]
        assert note.endswith(" files, 1 ignored by statix.toml")


def test_a_statix_that_knows_no_json(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fleet / "a.nix").write_text("x: [(x == true)]\n")
    monkeypatch.setenv("STATIX_WITHOUT_JSON", "1")
    [said] = statix(Place(fleet, ["a.nix"], fleet), 60).findings
    assert (said.file, said.line, said.rule) == ("a.nix", 1, "W01")


@pytest.mark.parametrize("option", ["--without", "--only"])
def test_a_name_that_is_no_tools(fleet: Path, option: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", option, "static"]) == 2
    assert capfd.readouterr().err == (
        f"{option} static: there is no such tool; there are alejandra, deadnix, statix, merge, definitions, secrets, "
        "lockout, closures, flake, builds\n"
    )


def test_github_is_told_and_told_nothing_else(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (fleet / "a, b.nix").write_text(UNFORMATTED)
    git(fleet, "add", "-A")
    annotation = "::error file=the fleet/a%2C b.nix,title=alejandra::is not formatted; run `nixherd fmt`"
    assert run(["check", *QUICK]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    again = lines.index(f"::{lines[0].rpartition(':')[2]}::")
    assert [line for line in lines[1:again] if line.startswith("::")] == []
    assert lines[again + 1] == annotation
    assert run(["check", *QUICK, "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["ok"] is False
    assert err.splitlines()[0] == annotation


def test_nothing_is_no_pass(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--only", "statix", "--without", "statix"]) == 2
    assert "nothing is left to run" in capfd.readouterr().err


FLAKE = """{
  outputs = _: let
    derivationOf = name: derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = ["-c" "echo $name >$out"];
    };
    machine = name: {
      config = {
        networking.hostName = name;
        users.users.root.hashedPassword = "x";
        system.build.toplevel = derivationOf name;
      };
    };
  in {
    nixosConfigurations = {
      dev = machine "dev";
      proxmox-vm = machine "proxmox-vm";
    };
    homeConfigurations.caddy.activationPackage = derivationOf "caddy";
  };
}
"""


@pytest.mark.slow
def test_a_foreign_flake_without_checks_is_built_and_a_run_of_pyinfra_depends_on_it(fleet: Path, ask: Ask) -> None:
    (fleet / "flake.nix").write_text(FLAKE)
    git(fleet, "add", "-A")
    assert run(["fmt"]) == 0
    status, document = ask()
    notes = {each["name"]: each["note"] for each in document["tools"]}
    assert status == 0, document
    assert (notes["builds"], notes["lockout"]) == ("2 systems, 1 home, 0 disko scripts built", "2 machines")

    def deploys() -> subprocess.CompletedProcess[str]:
        pyinfra = Path(sys.executable).with_name("pyinfra")
        argv: list[str | Path] = [pyinfra, "-y", "inventory.py", "deploys/check.py", "--data", "without=secrets;merge"]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    passed = deploys()
    assert passed.returncode == 0, passed.stderr
    assert passed.stderr.count("ok builds: 2 systems") == 1
    assert passed.stderr.count("not run merge: --without") == 1
    text = (fleet / "flake.nix").read_text().replace('machine "dev"', "nothing")
    (fleet / "flake.nix").write_text(text)
    refused = deploys()
    assert refused.returncode == 4
    line = text[: text.index("nothing")].count("\n") + 1
    assert f"flake.nix:{line}:13: " in refused.stderr, refused.stderr
    for host in ("dev", "proxmox-vm", "caddy"):
        assert f"{host}: the quality gate: " in refused.stderr


def test_what_hosts_nix_does_not_name_is_built_too(fleet: Path, ask: Ask, tmp_path: Path) -> None:
    """And the fleet may be a link. `nix flake check` says nothing of homes, nor of what is only thrown inside."""
    text = FLAKE.replace("config = {\n", "config = {\n        unused = 1;\n")
    text = text.replace(
        '      dev = machine "dev";', '      dev = machine "dev";\n      other.config.system.build.toplevel = LAZY;'
    )
    text = text.replace("LAZY", 'derivationOf "other" // {drvPath = throw "never seen";}')
    text = text.replace(
        "    homeConfigurations.caddy",
        '    homeConfigurations."me@pc" = throw "no home";\n    homeConfigurations.caddy',
    )
    (fleet / "flake.nix").write_text(text)
    git(fleet, "add", "-A")
    (tmp_path / "link").symlink_to(fleet)
    status, document = ask("--only", "builds", "--only", "flake")
    said = {each["attribute"]: each["what"] for each in document["findings"] if each["tool"] == "builds"}
    assert (status, said) == (
        1,
        {"nixosConfigurations.other": "never seen", "homeConfigurations.me@pc": "no home"},
    )
    (fleet / "flake.nix").write_text(FLAKE.replace("x86_64-linux", "riscv64-linux"))
    assert run(["--fleet", str(tmp_path / "link"), "check", "--only", "flake", "--table"]) == 0
    status, document = ask("--only", "builds")
    [builds] = [each for each in document["tools"] if each["name"] == "builds"]
    assert (status, builds["status"], document["findings"]) == (1, "unknown", [])
    assert "this machine does not build" in builds["reason"]


# Hooks


def test_the_hook_keeps_what_is_wrong_from_being_committed(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["hooks", "install"]) == 0
    hook = fleet.parent / ".git/hooks/pre-commit"
    before = hook.stat()
    assert run(["hooks", "install"]) == 0
    assert (hook.stat().st_ino, hook.stat().st_mode & 0o777) == (before.st_ino, 0o755)
    assert "is installed already" in capfd.readouterr().out
    seen = fleet.parent / "seen"
    write(fleet.parent.parent / "bin/nixherd", f'#!/bin/sh\necho "$@" >> "{seen}"\nexit 1\n')
    (fleet / "a.nix").write_text(UNFORMATTED)
    git(fleet, "add", "a.nix")
    with pytest.raises(subprocess.CalledProcessError):
        git(fleet, "commit", "-qm", "x")
    assert seen.read_text() == f"--fleet {fleet} check --changed --table\n"
    assert "commit" not in git(fleet, "log", "--format=%s", "-1")


def test_the_hook_judges_what_git_commits_by_name(fleet: Path) -> None:
    """`git commit FILE` takes the file as it lies there, from an index of its own; what is staged of it is another."""
    assert run(["hooks", "install"]) == 0
    nixherd, paths = Path(sys.executable).with_name("nixherd"), fleet.parent.parent / "bin"
    only = " ".join(QUICK)
    write(paths / "nixherd", f'#!/bin/sh\nexec {nixherd} "$@" {only}\n')
    (fleet / "a.nix").write_text(FORMATTED)
    git(fleet, "add", "a.nix")
    (fleet / "a.nix").write_text(UNFORMATTED)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        git(fleet, "commit", "-qm", "x", "a.nix")
    assert "a.nix: is not formatted" in refused.value.stderr + refused.value.stdout
    git(fleet, "commit", "-qm", "x")


def test_a_hook_of_somebody_elses_stays(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook = fleet.parent / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    assert run(["hooks", "install"]) == 4
    assert "add the line `nixherd check --changed --table || exit 1` to it" in capfd.readouterr().err
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"


def test_hooks_that_are_switched_off_are_said(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    git(fleet, "config", "core.hooksPath", os.devnull)
    assert run(["hooks", "install"]) == 4
    assert "is not a directory, so git runs no hooks" in capfd.readouterr().err


def test_the_hooks_of_all_repositories_are_left_alone(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(fleet, "config", "--global", "core.hooksPath", str(tmp_path / "theirs"))
    assert run(["hooks", "install"]) == 4
    assert "holds the hooks of all repositories (core.hooksPath, global configuration)" in capfd.readouterr().err
    assert not (tmp_path / "theirs").exists()
    git(fleet, "config", "core.hooksPath", ".git/hooks")
    assert run(["hooks", "install"]) == 0
    assert (fleet.parent / ".git/hooks/pre-commit").exists()


@pytest.mark.parametrize("said", [".githooks", "ABSOLUTE"])
def test_the_hook_is_where_git_looks_for_it(fleet: Path, said: str, tmp_path: Path) -> None:
    directory = tmp_path / "their hooks" if said == "ABSOLUTE" else fleet.parent / said
    git(fleet, "config", "core.hooksPath", str(directory) if said == "ABSOLUTE" else said)
    assert run(["hooks", "install"]) == 0
    assert os.access(directory / "pre-commit", os.X_OK)


def test_the_hook_of_a_worktree(fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(fleet, "worktree", "add", "-q", str(tmp_path / "tree"))
    monkeypatch.setenv("FLEET", str(tmp_path / "tree/the fleet"))
    assert run(["hooks", "install"]) == 0
    assert (fleet.parent / ".git/hooks/pre-commit").exists(), "git has one directory of hooks for all work trees"
    write(tmp_path / "bin/nixherd", f'#!/bin/sh\necho "$2" > "{tmp_path}/seen"\n')
    (tmp_path / "tree/x").write_text("x")
    git(tmp_path / "tree", "add", "x")
    git(tmp_path / "tree", "commit", "-qm", "y")
    assert (tmp_path / "seen").read_text() == f"{tmp_path}/tree/the fleet\n"


def test_there_is_no_hook_without_a_repository(
    make_fleet: MakeFleet, fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(name="elsewhere")))
    assert run(["hooks", "install"]) == 4
    assert "`git init` it" in capfd.readouterr().err
