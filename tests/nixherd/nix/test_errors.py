"""Nix's errors in one line each: the messages are those that real Nix and nixpkgs print, shortened."""

import json
from pathlib import Path

import pytest

from nixherd.base.errors import ProcessFailed
from nixherd.nix.errors import explain, explain_failure, is_circumstance, last_error
from nixherd.nix.places import fleet_files

COPY = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-source"
# The store path of a tree with this NAR hash, as Nix 2.26 printed it.
INPUT, INPUT_HASH = (
    "/nix/store/minql6z17iaa6lb9md0rmxl12za9420h-source",
    "sha256-2IPMM86E9zwm4e/E+i70hN58PVc9KyeHpb0z2JHg1og=",
)
BOLD = "\x1b[35;1m"
ADVICE = "correct the Nix there"


def log(what: str, *trace: str, after: str = "") -> str:
    """An internal-json log with a warning before the error and something else after it."""
    warning = {"action": "msg", "level": 1, "msg": "warning: Git tree is dirty"}
    frames = "".join(
        f"\n  … while calling\n    at {BOLD}{frame}\x1b[0m:\n      1| x"
        if frame.startswith(("/", "«"))
        else f"\n  {frame}"
        for frame in trace
    )
    error = {"action": "msg", "level": 0, "msg": f"error:{frames}\n error: {what}{after}", "raw_msg": what}
    return "\n".join([f"@nix {json.dumps(warning)}", f"@nix {json.dumps(error)}", '@nix {"action":"stop","id":1}'])


def written(fleet: Path, **texts: str) -> None:
    for name, text in texts.items():
        (fleet / f"{name}.nix").write_text(text)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "hosts/dev").mkdir(parents=True)
    (tmp_path / "hosts/dev/new.nix").write_text("{ }")
    lock = {"root": {"inputs": {"n": "n_2"}}, "n_2": {"locked": {"narHash": INPUT_HASH, "rev": "4f2c" * 10}}}
    (tmp_path / "flake.lock").write_text(json.dumps({"nodes": lock, "root": "root"}))
    written(tmp_path, flake='{\n  inputs = {\n    n.url = "github:a/b";\n  };\n}\n')
    return tmp_path


def test_the_last_place_in_the_fleet_counts(fleet: Path) -> None:
    trace = log("undefined\n  variable 'x'", f"{fleet}/hosts.nix:3:4", f"{COPY}/lib/a.nix:1:1", f"{fleet}/b.nix:5:6")
    assert explain(trace, fleet) == f"b.nix:5:6: undefined variable 'x'; {ADVICE}"


def test_a_copy_of_the_fleet_is_the_fleet(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the file is the same: nixpkgs has a flake.nix too."""
    read = Path.read_bytes
    texts = {f"{COPY}/hosts.nix": b"ours", f"{fleet}/hosts.nix": b"ours"}
    texts |= {f"{COPY}/flake.nix": b"nixpkgs'", f"{fleet}/flake.nix": b"ours"}
    monkeypatch.setattr(Path, "read_bytes", lambda path: texts.get(str(path)) or read(path))
    assert explain(log("no", f"{COPY}/hosts.nix:3:4", f"{COPY}/flake.nix:1:1"), fleet).startswith("hosts.nix:3:4: no;")
    assert explain(log("no", f"{COPY}/flake.nix:1:1"), fleet) == f"{fleet}: Nix cannot evaluate the fleet: no"


def test_a_tree_that_newer_nix_names_by_its_reference_is_the_fleet_or_an_input(fleet: Path) -> None:
    ours, theirs = f"«git+file://{fleet}»/hosts/dev/new.nix:1:3", f"«github:a/b/{'4f2c' * 10}»/lib.nix:7:8"
    assert explain(log("no", ours, theirs), fleet) == f"hosts/dev/new.nix:1:3: no; {ADVICE}"
    assert explain(log("no", theirs), fleet).endswith("no (in an input: n/lib.nix:7:8)")


def test_a_file_that_is_there_but_not_for_git(fleet: Path) -> None:
    assert explain(log(f"path '{COPY}/hosts/dev/new.nix' does not exist"), fleet) == (
        "hosts/dev/new.nix: path 'hosts/dev/new.nix' does not exist; `git add hosts/dev/new.nix`, "
        "Nix sees only what git knows"
    )
    gone = explain(log(f"path '{COPY}/hosts/dev/gone.nix' does not exist"), fleet)
    assert gone.endswith("path 'hosts/dev/gone.nix' does not exist; create it, or correct the path")


def test_a_missing_import_is_found_where_it_is_written(fleet: Path) -> None:
    """The module system reads imports far from where they are written: no position of the trace is in the fleet."""
    (fleet / "hosts/dev/a.nix").write_text("{\n  imports = [ ./gone.nix ]; # ./new.nix\n}\n")
    gone = explain(log(f"path '{COPY}/hosts/dev/gone.nix' does not exist"), fleet)
    assert gone == "hosts/dev/a.nix:2:15: path 'hosts/dev/gone.nix' does not exist; create it, or correct the path"


def test_what_a_submodule_holds_is_not_added_to_git(fleet: Path) -> None:
    (fleet / ".gitmodules").write_text('[submodule "m"]\n\tpath = hosts/dev\n')
    missing = explain(log(f"path '{COPY}/hosts/dev/new.nix' does not exist"), fleet)
    assert "git add" not in missing
    assert "it is in the git submodule hosts/dev: set inputs.self.submodules = true" in missing


def test_a_file_that_an_input_lacks_is_not_the_fleets(fleet: Path) -> None:
    missing = explain(log(f"path '{INPUT}/hosts/dev/new.nix' does not exist", f"{fleet}/flake.nix:3:5"), fleet)
    assert missing == f"flake.nix:3:5: the input n has no hosts/dev/new.nix; {ADVICE}"
    no_flake = log(f"path '{COPY}/flake.nix' does not exist", "… while updating the flake input 'n'")
    assert explain(no_flake, fleet) == (
        "flake.nix:3:5: input n: it has no flake.nix; set inputs.n.flake = false, or correct its URL"
    )


def test_a_fleet_below_its_repository_is_told_from_its_own_directory(fleet: Path, tmp_path: Path) -> None:
    """The flake's copy is of the whole repository, the top of which is above."""
    (tmp_path / ".git").mkdir()
    directory = tmp_path / "hosts"
    missing = explain(log(f"path '{COPY}/hosts/dev/new.nix' does not exist"), directory)
    assert missing.endswith("`git add dev/new.nix`, Nix sees only what git knows")
    below = fleet_files(directory).below
    assert (below("hosts/dev/new.nix"), below("dev/gone.nix")) == ("dev/new.nix", "dev/gone.nix")
    assert fleet_files(fleet / "elsewhere").below("lib/x.nix") == "lib/x.nix"


def test_a_fetched_flake_in_a_subdirectory_has_the_files_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`?dir=`: the fleet's own files are in the store then, below the copy of their repository."""
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"x" if str(path) == f"{COPY}/lib.nix" else read(path))
    assert explain(log("no", f"{COPY}/lib.nix:2:7"), Path(f"{COPY}/fl")) == f"../lib.nix:2:7: no; {ADVICE}"


# Options


def undeclared(option: str, *files: str, meant: str = "") -> str:
    values = "".join(f"\n- In `{file}':\n    {{\n      enable = true;\n    }}" for file in files)
    suggestion = f"\n\nDid you mean {meant}?" if meant else ""
    return f"The option `{option}' does not exist. Definition values:{values}{suggestion}"


def test_a_misspelt_option_is_told_with_the_line_that_sets_it_and_the_name_that_is_near(fleet: Path) -> None:
    text = "{ lib, ... }:\n{\n  config = lib.mkIf true {\n    services = {\n      opensshh.enable = true;\n"
    written(fleet, web=f"{text}    }};\n  }};\n}}")
    meant = "`services.openssh', `services.opengfw' or `services.x'"
    error = undeclared("services.opensshh", f"{COPY}/web.nix", meant=meant)
    assert explain(log(error, f"{fleet}/flake.nix:9:9"), fleet) == (
        "web.nix:5:7: the option `services.opensshh' does not exist; did you mean services.openssh?"
    )


@pytest.mark.parametrize(
    ("option", "text", "meant", "expected"),
    [
        pytest.param("servicess", "{ servicess.x = 1; }", "`services', `users' or `system'", "1:3 services", id="top"),
        pytest.param(
            "home-manager.users.abl.programs.gitt", "{\n  programs.gitt.enable = true;\n}",
            "`home-manager.users.abl.programs.git'", "2:3 home-manager.users.abl.programs.git", id="home",
        ),
        pytest.param(
            'services."a.bb"', '{ services."a.bb".x = 1; }', '`services."a.b"\'', '1:3 services."a.b"', id="quoted",
        ),
        pytest.param("a.qwerty", "{ a = { qwerty = 1; }; }", "`a.b', `a.c' or `a.d'", "1:9", id="nothing near"),
        pytest.param("a.x", "(import ./b.nix)", "", "", id="written nowhere"),
    ],
)  # fmt: skip
def test_each_kind_of_misspelt_option(fleet: Path, option: str, text: str, meant: str, expected: str) -> None:
    written(fleet, web=text)
    position, _, name = expected.partition(" ")
    remedy = f"did you mean {name}?" if name else "correct its name, or import the module that declares it"
    place = f"web.nix:{position}" if position else "web.nix"
    message = explain(log(undeclared(option, f"{COPY}/web.nix", meant=meant)), fleet)
    assert message == f"{place}: the option `{option}' does not exist; {remedy}"


def test_an_option_of_the_wrong_type_and_one_that_is_set_twice(fleet: Path) -> None:
    written(fleet, a="{\n  x.enable = true;\n}\n", b="{ x.enable = false; }")
    wrong = (
        f"A definition for option `x.enable' is not of type `boolean'. Definition values:\n- In `{COPY}/a.nix': \"yes\""
    )
    assert explain(log(wrong, f"{fleet}/flake.nix:1:1"), fleet) == (
        f"a.nix:2:3: A definition for option `x.enable' is not of type `boolean': \"yes\"; {ADVICE}"
    )
    twice = (
        "The option `x.enable' has conflicting definition values:\n"
        f"- In `{INPUT}/m.nix': true\n- In `{COPY}/b.nix': false\n"
        "Use `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions."
    )
    assert explain(log(twice), fleet) == (
        "b.nix:1:3: The option `x.enable' has conflicting definition values: true (n/m.nix), false (b.nix:1:3); "
        "keep one of them, or give one priority (lib.mkForce, lib.mkDefault)"
    )


def test_the_definition_that_was_evaluated_is_the_place_where_nixpkgs_alone_has_positions(fleet: Path) -> None:
    written(fleet, a="{\n  environment.systemPackages = [ ];\n}\n")
    trace = (
        f"{fleet}/flake.nix:2:2", "… while evaluating the option `environment.systemPackages':",
        f"… while evaluating definitions from `{COPY}/a.nix':", f"{INPUT}/lib/modules.nix:1:1",
    )  # fmt: skip
    unfree = (
        f"Refusing to evaluate package 'unrar-7' in {INPUT}/pkgs/unrar.nix:58 because it has an unfree license (‘x’)\n"
        "a) To temporarily allow unfree packages, you can use an environment variable"
    )
    assert explain(log(unfree, *trace), fleet) == (
        "a.nix:2:3: Refusing to evaluate package 'unrar-7' in n/pkgs/unrar.nix:58 because it has an unfree license "
        "(‘x’); take the package out, or allow it (nixpkgs.config.allowUnfreePredicate)"
    )


# What is not the fleet's fault

RESOLVE = "unable to download 'https://x.invalid/x': Could not resolve hostname (6) Could not resolve host: x.invalid"
HERE = {
    "DNS": (RESOLVE, "check this machine's network and DNS"),
    "refused": ("unable to download 'http://x': Could not connect to server (7)", "check that this machine reaches it"),
    "limit": ("unable to download 'https://x': HTTP error 403", "access-tokens in nix.conf"),
    "server": ("unable to download 'https://x': HTTP error 503", "run it again later"),
    "daemon": ("cannot connect to socket at '/nix/x/socket': Connection refused", "start the Nix daemon"),
    "full": ("writing to file: No space left on device", "make room"),
    "memory": ("out of memory", "give it more memory"),
    "store": ("creating directory '/nix/store/x': Permission denied", "as a user of the Nix daemon"),
    "system": ("a 'aarch64-linux' with features {} is required to build '/nix/store/x.drv', but I am", "builders"),
    "signature": ("path '/nix/store/x' lacks a signature by a trusted key", "trusted-public-keys"),
    "old": ("unrecognised flag '--no-such'", "this Nix is too old"),
    "features": ("experimental Nix feature 'flakes' is disabled", "add flakes to experimental-features"),
    "owner": ('opening Git repository "/f": repository path \'/f\' is not owned by current user', "safe.directory"),
    "cache": ("path '/nix/store/x' is required, but there is no substituter that can build it", "substituters"),
    "interrupted": ("interrupted by the user", ""),
}  # fmt: skip


@pytest.mark.parametrize(("message", "remedy"), HERE.values(), ids=HERE)
def test_what_the_fleets_files_cannot_help_is_not_corrected_there(fleet: Path, message: str, remedy: str) -> None:
    line = explain(log(message), fleet)
    assert remedy in line
    assert ADVICE not in line
    assert is_circumstance(message)
    assert not is_circumstance(f"builder for '/nix/store/x.drv' failed; the builder said: {message}")


def test_an_input_that_cannot_be_fetched_is_named(fleet: Path) -> None:
    """The position in flake.nix is only where the input is used first."""
    fetching = "… while fetching the input 'github:a/b/" + "4f2c" * 10 + "'"
    line = explain(log(RESOLVE, f"{fleet}/flake.nix:103:4", fetching), fleet)
    assert line == (
        f"{fleet}: Nix cannot evaluate the fleet: input n: {RESOLVE}; "
        "check this machine's network and DNS, and run it again"
    )
    missing = explain(
        log("unable to download 'https://x': HTTP error 404", "… while updating the flake input 'n'"), fleet
    )
    assert missing.startswith("flake.nix:3:5: input n: unable to download")
    assert "correct the input's URL or revision" in missing


def test_why_git_could_not_fetch_is_said_by_ssh(fleet: Path) -> None:
    text = log("resolving Git reference 'main': revspec 'main' not found", "… while updating the flake input 'n'")
    line = explain(f"ssh: Could not resolve hostname x: Name or service not known\nfatal: no\n{text}", fleet)
    assert "(ssh: Could not resolve hostname x: Name or service not known); check this machine's network" in line


REMEDIES = {
    "lock": ("flake 'path:/f' requires lock file changes", "; `nix flake lock` there, and commit flake.lock"),
    "registry": ("cannot find flake 'flake:n' in the flake registries", "; add inputs.n.url to flake.nix"),
    "changed": ("mismatch in field 'narHash' of input '{}', got '{}'", "`nix flake update` that input if it is meant"),
    "hash": ("hash mismatch in file downloaded from 'x'", "; write the hash that it got, if this change is meant"),
    "assertions": ("\nFailed assertions:\n- set x", " cannot evaluate the fleet: Failed assertions: - set x"),
    "a file of the machine": (
        "access to absolute path '/etc/nixos' is forbidden in pure evaluation mode (use '--impure' to override)",
        "in pure evaluation mode; a flake sees its own files alone: copy it into the repository, `git add` it there, "
        "and import that",
    ),
    "NIX_PATH": (
        "cannot look up '<nixpkgs>' in pure evaluation mode (use '--impure' to override)",
        "in pure evaluation mode; a flake has no NIX_PATH: make nixpkgs one of its inputs, and use that",
    ),
    "unset": ("The option `x' was accessed but has no value defined.", "; give it a value"),
    "insecure": ("package 'x' because it is marked as insecure", "(nixpkgs.config.permittedInsecurePackages)"),
    "unknown": ("a kind of error that nobody knows", " cannot evaluate the fleet: a kind of error that nobody knows"),
}


@pytest.mark.parametrize(("message", "end"), REMEDIES.values(), ids=REMEDIES)
def test_the_remedy_fits_or_there_is_none(fleet: Path, message: str, end: str) -> None:
    assert explain(log(message), fleet).endswith(end)


def test_what_nix_suggests_is_the_remedy(fleet: Path) -> None:
    line = explain(
        log(
            "attribute 'helo' missing",
            f"{fleet}/a.nix:1:7",
            after="\n   Did you mean one of \x1b[1mhalo\x1b[0m or hello?",
        ),
        fleet,
    )
    assert line == "a.nix:1:7: attribute 'helo' missing; did you mean one of halo or hello?"


def test_an_output_that_the_flake_lacks(fleet: Path) -> None:
    lacking = "flake 'git+file:///f' does not provide attribute 'packages.x86_64-linux.a.b' or 'a.b'"
    assert explain(log(lacking), fleet) == f"{fleet}/flake.nix: it has no a.b; add it"


# Builds


def test_an_import_from_derivation_that_fails_has_its_builders_words(fleet: Path) -> None:
    output = {"action": "result", "fields": ["no zlib"], "id": 5, "type": 101}
    error = log("builder for '/nix/store/x.drv' failed with exit code 3", f"{fleet}/a.nix:1:7")
    assert explain(f"@nix {json.dumps(output)}\n{error}", fleet) == (
        "a.nix:1:7: builder for '/nix/store/x.drv' failed with exit code 3; the builder said: no zlib; "
        "`nix log /nix/store/x.drv` has all that its builder said"
    )


def test_what_is_not_such_a_log_is_shown_as_it_is(fleet: Path) -> None:
    line = explain("warning: x\nerror: the daemon\nis gone", fleet)
    assert line == f"{fleet}: Nix cannot evaluate the fleet: the daemon is gone"


def test_a_nix_that_was_killed_says_so(fleet: Path) -> None:
    killed = explain_failure(ProcessFailed("nix: killed", -9, log("half a", f"{fleet}/a.nix:1:1")), fleet)
    assert killed.startswith(
        f"{fleet}: Nix was killed by SIGKILL while it evaluated the fleet; this machine may lack memory"
    )
    assert explain_failure(ProcessFailed("nix: 1", 1, log("no")), fleet).endswith("no")


def test_the_end_of_a_build() -> None:
    text = """\
building '/nix/store/x.drv'...
error: first
\x1b[31;1merror:\x1b[0m builder for '/nix/store/x.drv' failed with exit code 1;
       last 2 log lines:
       > configure: error: no zlib
       For full logs, run:
         nix log /nix/store/x.drv
"""
    assert last_error(text) == (
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
    text = "\n".join(f"@nix {json.dumps(entry)}" for entry in entries)
    assert last_error(text) == "builder for '/nix/store/n.drv' failed with exit code 3; the builder said: it is so"


def test_a_long_error_is_cut() -> None:
    assert len(last_error("error: " + "long " * 9999)) <= 1000
