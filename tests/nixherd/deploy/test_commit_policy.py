"""Who says that commits have to be signed, by whom and since when; and what was proven before, kept between runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.deploy.commit_policy import DEFAULT_SIGNERS, Gate, Record, require_committed
from nixherd.fleet.git import Repository

HASH, OTHER = "4f2c" * 10, "9ab1" * 10


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def gate(tmp_path: Path, values: dict[str, Any], text: str = "", *, by_hosts: bool = False) -> Gate | None:
    """Of these values of the command line, and this text of group_data/all.py."""
    (tmp_path / "all.py").write_text(text)
    return Gate.of(tmp_path, values, [tmp_path], by_hosts=by_hosts, notes=True)


@pytest.mark.parametrize(
    ("values", "text", "by_hosts", "is_required"),
    [
        ({}, "", False, False),
        ({}, "", True, True),
        ({}, "require_signed = True\n", False, True),
        ({"require_signed": "true"}, "", False, True),
        ({"require_signed": True}, "require_signed = False\n", False, True),
        ({"require_signed": "0"}, "require_signed = True\n", True, False),
    ],
)
def test_the_nearest_word_requires_signatures(
    tmp_path: Path, values: dict[str, Any], text: str, by_hosts: bool, is_required: bool
) -> None:
    assert (gate(tmp_path, values, text, by_hosts=by_hosts) is not None) == is_required


def test_what_is_vouched_for_in_this_run_goes_before_what_stands_in_the_tree(tmp_path: Path) -> None:
    text = f"require_signed = True\nsigned_from = '{HASH}'\n"
    standing, told = gate(tmp_path, {}, text), gate(tmp_path, {"signed_from": OTHER}, text)
    assert standing is not None
    assert told is not None
    assert (standing.told, standing.first) == (None, HASH)
    assert (told.told, told.first) == (OTHER, OTHER)
    assert standing.signers == Path(DEFAULT_SIGNERS).expanduser()


@pytest.mark.parametrize(
    ("values", "text", "error"),
    [
        ({"require_signed": "maybe"}, "", "require_signed=maybe is neither true nor false"),
        ({"require_signed": True, "signed_from": "4f2c"}, "", "signed_from=4f2c is not a whole hash of a commit"),
        ({"require_signed": True, "signed_from": 7}, "", "signed_from=7 is not a whole hash"),
        ({"require_signed": True, "allowed_signers": "signers"}, "", "would lie in the tree, or wherever this is run"),
        ({"require_signed": True, "allowed_signers": 7}, "", "allowed_signers=7 names no file"),
        ({}, "require_singed = True\n", "require_singed: nobody asks for it; write require_signed"),
    ],
)
def test_a_word_that_cannot_be_meant_requires_nothing_silently(
    tmp_path: Path, values: dict[str, Any], text: str, error: str
) -> None:
    with pytest.raises(Usage, match=error):
        gate(tmp_path, values, text)


def test_what_was_proven_is_kept_by_repository_and_signers(tmp_path: Path) -> None:
    signers, top = tmp_path / "signers", tmp_path / "fleet"
    Record.of(top, signers).note(HASH)
    assert Record.of(top, signers).revision == HASH
    assert Record.of(top, tmp_path / "others").revision is None
    assert Record.of(tmp_path / "another", signers).revision is None


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"revision": "4f2c"}), "no JSON"])
def test_a_record_that_cannot_be_read_is_no_beginning(tmp_path: Path, text: str) -> None:
    """Else whoever can damage it could have older commits taken."""
    record = Record.of(tmp_path, tmp_path / "signers")
    record.note(HASH)
    record.path.write_text(text)
    with pytest.raises(FleetError, match=r"cannot be read .*; remove it, and say signed_from=HASH once"):
        Record.of(tmp_path, tmp_path / "signers")


def test_what_nobody_could_say_later_is_not_deployed() -> None:
    require_committed("/fleet", [])
    with pytest.raises(FleetError, match=r"^/fleet/flake.nix: has changes that are not committed \(and 1 more\)"):
        require_committed("/fleet", ["flake.nix", "hosts.nix"])


def test_commits_that_are_required_to_be_signed_need_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repository, "around", lambda path: None)
    signed = gate(tmp_path, {"require_signed": True})
    assert signed is not None
    with pytest.raises(Refused, match="require_signed is set, but it is in no git repository"):
        signed.verify()


class Git:
    """A repository whose git says where it lies."""

    def __init__(self, top: Path) -> None:
        self.directory = top

    def read(self, *words: str) -> Any:
        class Done:
            stdout = ".git\n"

        return Done()


@pytest.mark.parametrize(
    ("place", "mode", "kind", "error"),
    [
        ("fleet/signers", 0o600, Refused, "lies in the tree whose commits it is to judge"),
        ("fleet/.git/signers", 0o600, Refused, "lies in the tree whose commits it is to judge"),
        ("signers", 0o620, Refused, "others may change it; chown it to yourself and chmod go-w it"),
        ("signers", None, Refused, "missing; write who may sign the fleet's commits into it"),
        ("signers", 0o600, FleetError, "cannot be read"),
    ],
)
def test_a_signers_file_that_others_could_write_judges_nobody(
    tmp_path: Path, place: str, mode: int | None, kind: type[Exception], error: str
) -> None:
    (tmp_path / "fleet/.git").mkdir(parents=True)
    file = tmp_path / place
    if mode is not None:
        file.write_bytes(b"\xff\xfe" if kind is FleetError else b"me ssh-ed25519 AAAA\n")
        file.chmod(mode)
    signed = gate(tmp_path, {"require_signed": True, "allowed_signers": str(file)})
    assert signed is not None
    repository: Any = Git(tmp_path / "fleet")
    with pytest.raises(kind, match=error):
        signed._who_may(tmp_path / "fleet", repository)
