import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.errors import FleetError
from nixherd.tokens import Token

pytestmark = pytest.mark.unit

SECRET = "12345678-9abc-def0-1234-56789abcdef0"
LINE = f"nixherd@pve!lab={SECRET}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(LINE + "\n")
    path.chmod(0o600)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(FleetError) as caught:
        Token.read(path)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_parts_of_a_token(file: Path) -> None:
    token = Token.read(file)
    assert (token.user, token.name, token.secret) == ("nixherd@pve", "lab", SECRET)
    assert token.id == "nixherd@pve!lab"


def test_the_secret_is_in_no_representation(file: Path) -> None:
    token = Token.read(file)
    assert SECRET not in f"{token} {token!r}"
    assert SECRET in token.secret  # the search above would find it


def test_home_is_expanded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert Token.read("~/token").name == "lab"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_file_that_others_may_use_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert _refusal(file) == f"token file {file}: group or others may use it (mode {mode:04o}); run: chmod 600 {file}"


def test_a_link_is_judged_by_what_it_points_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert Token.read(link).name == "lab"
    file.chmod(0o644)
    assert "mode 0644" in _refusal(link)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none") == (
        f"token file {tmp_path}/none: missing; make an API token and write USER@REALM!TOKENID=UUID into it, mode 0600, "
        "or name another file with PROXMOX_TOKEN_FILE"
    )


def test_an_empty_file_and_a_directory(file: Path, tmp_path: Path) -> None:
    file.write_text(" \n")
    assert _refusal(file) == f"token file {file}: empty; write the token into it as USER@REALM!TOKENID=UUID"
    assert _refusal(tmp_path) == f"token file {tmp_path}: cannot be read: Is a directory; check its path and mode"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused(file: Path) -> None:
    os.chown(file, 12345, -1)
    assert _refusal(file) == f"token file {file}: belongs to another user (uid 12345); make your own copy"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"nixherd!lab={SECRET}",
        f"nixherd@pve={SECRET}",
        f"nixherd@pve!lab:{SECRET}",
        f"nixherd@pve!lab={SECRET[:-1]}",
        f"nixherd@pve!lab={SECRET}0",
        f"PVEAPIToken={LINE}",
        f"{LINE}\n{LINE}",
        "nixherd@pve:password",
    ],
)
def test_anything_else_is_malformed(file: Path, text: str) -> None:
    file.write_text(text)
    assert _refusal(file) == (
        f"token file {file}: not one line of the form USER@REALM!TOKENID=UUID; write the token as pveum printed it"
    )


@given(st.binary(max_size=200))
def test_no_content_is_more_than_one_clear_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_bytes(data)
    path.chmod(0o600)
    _refusal(path)
