"""Nix's logs in one line each."""

import json
from pathlib import Path

import pytest

from nixherd.nix.errors import below, explain, last_error

COPY = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-source"
BOLD = "\x1b[35;1m"


def log(what: str, *trace: str) -> str:
    """An internal-json log with a warning before the error and something else after it."""
    warning = {"action": "msg", "level": 1, "msg": "warning: Git tree is dirty", "raw_msg": "Git tree is dirty"}
    positions = "".join(f"\n  … while calling\n    at {BOLD}{place}\x1b[0m:\n      1| x" for place in trace)
    error = {"action": "msg", "level": 0, "msg": f"error:{positions}\n error: {what}", "raw_msg": what}
    return "\n".join([f"@nix {json.dumps(warning)}", f"@nix {json.dumps(error)}", '@nix {"action":"stop","id":1}'])


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "hosts/dev").mkdir(parents=True)
    (tmp_path / "hosts/dev/new.nix").write_text("{ }")
    return tmp_path


def test_the_last_place_in_the_fleet_counts(fleet: Path) -> None:
    said = log("undefined\n  variable 'x'", f"{fleet}/hosts.nix:3:4", f"{COPY}/lib/a.nix:1:1", f"{fleet}/b.nix:5:6")
    assert explain(said, fleet) == "b.nix:5:6: undefined variable 'x'; correct the Nix there"


def test_a_copy_of_the_fleet_is_the_fleet(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the file is the same: nixpkgs has a flake.nix too."""
    there = Path.read_bytes
    texts = {f"{COPY}/hosts.nix": b"ours", f"{fleet}/hosts.nix": b"ours"}
    texts |= {f"{COPY}/flake.nix": b"nixpkgs'", f"{fleet}/flake.nix": b"ours"}
    monkeypatch.setattr(Path, "read_bytes", lambda path: texts.get(str(path)) or there(path))
    assert explain(log("no", f"{COPY}/hosts.nix:3:4", f"{COPY}/flake.nix:1:1"), fleet).startswith("hosts.nix:3:4: no;")
    assert explain(log("no", f"{COPY}/flake.nix:1:1"), fleet) == f"{fleet}: Nix cannot evaluate the fleet: no"


def test_a_file_that_is_there_but_not_for_git(fleet: Path) -> None:
    assert explain(log(f"path '{COPY}/hosts/dev/new.nix' does not exist"), fleet) == (
        f"{fleet}: Nix cannot evaluate the fleet: path 'hosts/dev/new.nix' does not exist; `git add hosts/dev/new.nix`"
        ", Nix sees only what git knows"
    )
    gone = explain(log(f"path '{COPY}/hosts/dev/gone.nix' does not exist"), fleet)
    assert gone.endswith("path 'hosts/dev/gone.nix' does not exist")
    for what in ("of another type, in", "The option `services.x' does not exist. Definition values: - In"):
        assert "git add" not in explain(log(f"{what} `{COPY}/hosts/dev/new.nix'"), fleet)


def test_a_fleet_below_its_repository_is_told_from_its_own_directory(fleet: Path, tmp_path: Path) -> None:
    """The flake's copy is of the whole repository, the top of which is above."""
    (tmp_path / ".git").mkdir()
    directory = tmp_path / "hosts"
    said = explain(log(f"path '{COPY}/hosts/dev/new.nix' does not exist"), directory)
    assert said.endswith("`git add dev/new.nix`, Nix sees only what git knows")
    assert below("hosts/dev/new.nix", directory) == "dev/new.nix"
    assert below("dev/gone.nix", directory) == "dev/gone.nix"
    assert below("lib/x.nix", fleet / "elsewhere") == "lib/x.nix"


def test_an_output_that_the_flake_lacks(fleet: Path) -> None:
    lacking = "flake 'git+file:///f' does not provide attribute 'packages.x86_64-linux.a.b' or 'a.b'"
    assert explain(log(lacking), fleet) == f"{fleet}/flake.nix: it has no a.b; add it"


def test_what_is_no_such_log_is_shown_as_it_is(fleet: Path) -> None:
    assert explain("warning: x\nerror: the daemon\nis gone", fleet) == (
        f"{fleet}: Nix cannot evaluate the fleet: the daemon is gone"
    )


def test_the_end_of_a_build() -> None:
    said = """\
building '/nix/store/x.drv'...
error: first
\x1b[31;1merror:\x1b[0m builder for '/nix/store/x.drv' failed with exit code 1;
       last 2 log lines:
       > configure: error: no zlib
       For full logs, run:
         nix log /nix/store/x.drv
"""
    assert last_error(said) == (
        "builder for '/nix/store/x.drv' failed with exit code 1; last 2 log lines: > configure: error: no zlib For "
        "full logs, run: nix log /nix/store/x.drv"
    )
    assert last_error("killed") == "killed"


def test_of_a_failed_build_the_error_that_the_others_follow_from() -> None:
    """As Nix 2.26 writes it, by a daemon elsewhere, with --keep-going."""
    first = (
        "\x1b[31;1merror:\x1b[0m builder for '/nix/store/n.drv' failed with exit code 3;\n       last 1 log lines:\n"
    )
    entries = [
        {"action": "result", "fields": ["it is so"], "id": 5, "type": 101},
        {
            "action": "msg",
            "level": 0,
            "msg": f"{first}       > it is so\n       For full logs, run:\n         nix log n",
        },
        {
            "action": "msg",
            "level": 0,
            "msg": "error: \x1b[35;1m1\x1b[0m dependencies of derivation 'y' failed to build",
        },
    ]
    said = "\n".join(f"@nix {json.dumps(entry)}" for entry in entries)
    assert last_error(said) == "builder for '/nix/store/n.drv' failed with exit code 3; the builder said: it is so"


def test_a_long_error_is_cut() -> None:
    assert len(last_error("error: " + "long " * 9999)) <= 1000
