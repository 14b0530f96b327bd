"""The gate's tools: repairs, formatting, linting, statix, annotations, builds."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from nixherd.cli.main import run
from nixherd.gate.files import Place
from nixherd.gate.programs import statix
from tests.nixherd.gate.conftest import FORMATTED, QUICK, ROOT, UNFORMATTED, UNUSED, Ask, found, git
from tests.preloaded.programs import Programs


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
        f"{option} static: the tool does not exist; there are alejandra, deadnix, statix, merge, definitions, secrets, "
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
def test_a_foreign_flake_without_checks_is_built_and_a_run_of_pyinfra_depends_on_it(
    fleet: Path, ask: Ask, programs: Programs
) -> None:
    (fleet / "flake.nix").write_text(FLAKE)
    git(fleet, "add", "-A")
    assert run(["fmt"]) == 0
    status, document = ask()
    notes = {each["name"]: each["note"] for each in document["tools"]}
    assert status == 0, document
    assert (notes["builds"], notes["lockout"]) == ("2 systems, 1 home, 0 disko scripts built", "2 machines")

    def deploys() -> subprocess.CompletedProcess[str]:
        argv = ["pyinfra", "-y", "inventory.py", "deploys/check.py", "--data", "without=secrets;merge"]
        return subprocess.run(
            argv, cwd=ROOT, env=programs(dict(os.environ)), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

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
