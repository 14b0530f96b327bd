"""What each tool prints, as findings; and what none of them prints, as unknown, never as ok."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Finding, Severity
from nixherd.base.process import Completed
from nixherd.gate import configurations, files, programs
from nixherd.gate.files import Place
from nixherd.gate.results import Found, Unknown, judged

FILES = ["a.nix", "m/b c.nix"]
COUNT = "Checking style in 2 files using 2 threads.\n\n"


def ended(stdout: str = "", stderr: str = "", status: int = 0) -> Completed:
    return Completed(stdout, stderr, status)


def places(found: list[Found]) -> list[tuple[str | None, int | None, int | None, str]]:
    return [(each.file, each.line, each.column, each.rule) for each in found]


# alejandra


def test_alejandra_names_what_is_not_formatted(tmp_path: Path) -> None:
    assert programs.parse_alejandra(ended(stderr=COUNT + "Congratulations!"), FILES) == []
    found = programs.parse_alejandra(ended("Requires formatting: ./m/b c.nix\n", COUNT + "Alert! 1 file", 2), FILES)
    assert places(found) == [("m/b c.nix", None, None, "format")]
    (tmp_path / "a.nix").write_text("{\n  ä = 1\n}\n")
    place = Place(tmp_path, FILES, tmp_path)
    stderr = (
        COUNT + "\nFailed! 1 error found at:\n- ./a.nix: unexpected token at 11..12, wanted any of [TOKEN_SEMICOLON]"
    )
    assert places(programs.parse_alejandra(ended("", stderr, 1), FILES, place)) == [("a.nix", 3, 1, "syntax")]


@pytest.mark.parametrize(
    "done",
    [
        ended(),  # a program that looks at nothing
        ended(stderr="Checking style in 1 file using 1 thread.\n"),  # one was not there
        ended(stderr=COUNT, status=2),
        ended(stderr=COUNT, status=1),
        ended("Requires formatting: ./a.nix\n", COUNT, 0),
        ended("Requires formatting: ./other.nix\n", COUNT, 2),
        ended("./a.nix needs work\n", COUNT, 2),  # of another version
        ended("", "thread 'main' panicked", 1),
    ],
)
def test_alejandra_that_says_something_else_is_not_believed(done: Completed) -> None:
    with pytest.raises(Unknown):
        programs.parse_alejandra(done, FILES)


# deadnix


def dead(file: str, *results: dict[str, Any]) -> str:
    return json.dumps({"file": file, "results": results}) + "\n"


BINDING = {"message": "Unused let binding x", "line": 3, "column": 5, "endColumn": 6}


def test_deadnix_names_bindings_and_what_it_could_not_look_at() -> None:
    assert programs.parse_deadnix(ended(), FILES) == []
    said = dead("./a.nix", BINDING) + dead("./m/b c.nix", {"message": "unexpected token at 4..5"})
    assert places(programs.parse_deadnix(ended(said, status=1), FILES)) == [
        ("a.nix", 3, 5, "unused"),
        ("m/b c.nix", None, None, "syntax"),
    ]
    # a file that does not parse is passed over, with status 0
    assert places(programs.parse_deadnix(ended(dead("./a.nix", {"message": "no"})), FILES)) == [
        ("a.nix", None, None, "syntax")
    ]
    old = ended(stderr="Error parsing file ./a.nix: unexpected end of file\n")
    assert places(programs.parse_deadnix(old, FILES)) == [("a.nix", None, None, "syntax")]


@pytest.mark.parametrize(
    "done",
    [
        ended("Warning: Unused declarations were found.\n", status=1),
        ended("{}\n", status=1),
        ended("[]\n", status=1),
        ended(dead("./elsewhere.nix", BINDING), status=1),
        ended(dead("./a.nix", BINDING), status=0),
        ended("", status=1),
        ended("", "thread 'main' panicked at src/main.rs", 0),
    ],
)
def test_deadnix_that_says_something_else_is_not_believed(done: Completed) -> None:
    with pytest.raises(Unknown):
        programs.parse_deadnix(done, FILES)


# statix


def report(code: int = 1, severity: str = "Warn", message: str = "Comparing `x` with\n  boolean literal") -> str:
    at = {"line": 2, "column": 7}
    diagnostic = {"at": {"from": at, "to": at}, "message": message, "suggestion": None}
    rows = [{"note": "n", "code": code, "severity": severity, "diagnostics": [diagnostic]}]
    return json.dumps({"file": "./m/b c.nix", "report": rows}, indent=2) + "\n"


def test_statix_prints_one_document_after_the_other() -> None:
    assert programs.parse_statix(ended()) == []
    found = programs.parse_statix(ended(report() + report(0, "Error", "Unexpected end of file"), status=1))
    assert places(found) == [("m/b c.nix", 2, 7, "W01"), ("m/b c.nix", 2, 7, "syntax")]
    assert [each.severity for each in found] == [Severity.WARNING, Severity.ERROR]
    assert found[0].what == "comparing `x` with boolean literal"


def test_statix_without_json_prints_lines() -> None:
    found = programs.parse_statix(ended("./m/b c.nix>2:7:W:20:Avoid repeated keys: a>b:1\n", status=1), errfmt=True)
    assert places(found) == [("m/b c.nix", 2, 7, "W20")]


@pytest.mark.parametrize(
    "done",
    [
        ended("", "thread 'main' panicked at lib/src/lints", 101),
        ended("", "Failed to parse config", 0),  # it could not begin, and ends with 0
        ended("`a.nix` contains non-utf8 content\n", "", 0),
        ended("rubbish", "", 1),
        ended('{"file": "a.nix"}', "", 1),
        ended('{"file": "a.nix", "report": [{}]}', "", 1),
        ended("", "", 1),
        ended(report(), "", 0),
        ended("", "", -9),
    ],
)
def test_statix_that_says_something_else_is_not_believed(done: Completed) -> None:
    with pytest.raises(Unknown):
        programs.parse_statix(done)


# nix flake check


def log(*messages: str) -> str:
    """As Nix 2.26 logs with --keep-going: what it goes on after is `error (ignored)`, and has no `raw_msg`."""
    error = "\x1b[31;1merror:\x1b[0m"
    marks = [*[f"error (ignored): {error}"] * (len(messages) - 1), error]
    entries = [{"action": "msg", "level": 0, "msg": mark + each} for mark, each in zip(marks, messages, strict=True)]
    return "".join(f"@nix {json.dumps(each)}\n" for each in entries)


LAST = " some errors were encountered during the evaluation"
SOURCE = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-source"
OF_DEV = "\n  … while checking the NixOS configuration 'nixosConfigurations.dev'\n"


def test_flake_check_goes_on_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "dev.nix").write_text("{}\n")
    stderr = log(
        f"{OF_DEV}\n  error: The option `a' does not exist. Definition values:\n  - In `{SOURCE}/dev.nix': 1",
        f"{OF_DEV}\n  error:\n  Failed assertions:\n  - no way",
        f" path '{SOURCE}/more.nix' does not exist",
        " Cannot build '/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-x.drv'.\n Reason: builder failed",
        " this one requires lock file changes but they're not allowed",
        LAST,
    )
    files = {"nixosConfigurations.dev": "hosts/dev/configuration.nix"}
    found = configurations.parse_flake_check(ended(stderr=stderr, status=1), tmp_path, files.get)
    assert [each.file for each in found] == [
        *("dev.nix", "hosts/dev/configuration.nix", "more.nix", "flake.nix", "flake.lock"),
    ]
    assert "git add" not in found[0].remedy, "that an option does not exist is nothing about git"
    assert found[1].what == "Failed assertions: - no way"
    assert "nix log /nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-x.drv" in found[3].remedy


@pytest.mark.parametrize(
    ("what", "is_ours"),
    [
        ("unable to download 'https://x/y.tar.gz': Could not resolve hostname (6)", False),
        ("unable to download 'https://api.github.com/x': HTTP error 403", False),
        ("cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused", False),
        ("writing to file: No space left on device", False),
        (
            "a 'aarch64-linux' with features {} is required to build '/nix/store/x.drv', but I am a 'x86_64-linux'",
            False,
        ),
        ("experimental Nix feature 'flakes' is disabled", False),
        ("undefined variable 'x'", True),
        ("builder for '/nix/store/x.drv' failed with exit code 1; the builder said: No space left on device", True),
    ],
)
def test_what_is_no_fault_of_the_fleets_is_not_known(what: str, is_ours: bool) -> None:
    look = judged([Found(what, "flake.nix")], "note")
    assert (bool(look.findings), bool(look.unknown)) == (is_ours, not is_ours)


def test_what_is_traced_is_no_error(tmp_path: Path) -> None:
    said = [{"action": "msg", "level": 0, "msg": text} for text in ("trace: warning: old", "error: why")]
    log = "".join(f"@nix {json.dumps(each)}\n" for each in said)
    assert [each.what for each in configurations.parse_flake_check(ended(stderr=log, status=1), tmp_path)] == ["why"]


@pytest.mark.parametrize("done", [ended(status=-9), ended(status=-11)])
def test_flake_check_that_was_killed_says_nothing(done: Completed, tmp_path: Path) -> None:
    with pytest.raises(Unknown):
        configurations.parse_flake_check(done, tmp_path)


def test_flake_check_that_fails_in_plain_words_is_not_ok(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="killed by the kernel"):
        configurations.parse_flake_check(ended(stderr="error: killed by the kernel", status=1), tmp_path)
    assert configurations.parse_flake_check(ended(stderr=log(LAST), status=1), tmp_path), "an error is never nothing"


# The rest


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/f/hosts.nix:3:5: undefined; correct it", Found("undefined", "hosts.nix", 3, 5, remedy="correct it")),
        ("secrets/a.yaml: no rule; add one", Found("no rule", "secrets/a.yaml", remedy="add one")),
        ("secrets/a b.env: is not", Found("is not", "secrets/a b.env")),
        ("something: else", Found("something: else")),
        ("nothing at all", Found("nothing at all")),
        (
            Finding(Severity.WARNING, "hosts/a.nix:7", "x.y", "what", "do"),
            Found("what", "hosts/a.nix", 7, None, Severity.WARNING, "x.y", "do"),
        ),
    ],
)
def test_a_line_is_taken_apart(text: str, found: Found) -> None:
    assert Found.of_text(text, "/f") == found


def test_markers_are_those_of_a_conflict() -> None:
    text = b"a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> x\n"
    assert [each.line for each in files.markers("a", text * 2)] == [2, 8]
    for sound in (b"Title\n=======\n", b"<<<<<<< only\n", b">>>>>>> x\n<<<<<<< y\n", b"  <<<<<<< HEAD\n>>>>>>> x\n"):
        assert files.markers("a", sound) == []


CHECKS: dict[str, Callable[[Place, float], Any]] = {
    "alejandra": programs.alejandra,
    "deadnix": programs.deadnix,
    "statix": programs.statix,
}
ILL = {
    "hangs": "sleep 100",
    "is killed": "kill -9 $$",
    "crashes": "exit 3",
    "prints rubbish": "echo rubbish; echo rubbish >&2; exit 1",
    "cannot be started": None,
}


@pytest.mark.parametrize("how", ILL)
@pytest.mark.parametrize("tool", CHECKS)
def test_a_tool_that_is_ill_is_never_ok(tool: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, script = tmp_path / "bin" / tool, ILL[how]
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n" if script else "#!/nowhere/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "a.nix").write_text("1\n")
    place = Place(tmp_path, ["a.nix"], tmp_path)
    if tool == "statix":  # which is asked about each file, and goes on with the next
        assert tool in CHECKS[tool](place, 0.3).unknown
        return
    with pytest.raises(Unknown, match=tool):
        CHECKS[tool](place, 0.3)
