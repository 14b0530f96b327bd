import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.errors import FleetError
from nixherd.proxmox.token import Server, Token

SECRET = "12345678-9abc-def0-1234-56789abcdef0"
LINE = f"nixherd@pve!lab={SECRET}"
SERVER = Server("192.0.2.12", fingerprint="ab" * 32)
TOML = Token("nixherd@pve", "lab", SECRET, SERVER).to_toml()
REMEDY = "run: nixherd token add --replace"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOML)
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
    assert token.server == SERVER


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
        f"token file {tmp_path}/none: missing; make an API token and run: nixherd token add, "
        "or name another file with PROXMOX_TOKEN_FILE"
    )


def test_an_empty_file_and_a_directory(file: Path, tmp_path: Path) -> None:
    file.write_text(" \n")
    assert _refusal(file) == f"token file {file}: empty; {REMEDY}"
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
    file.write_text(TOML.replace(LINE, text.replace("\n", "\\n")))
    assert _refusal(file) == f"token file {file}: token is not of the form USER@REALM!TOKENID=UUID; {REMEDY}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"{LINE}\n", "it does not say which server the token belongs to"),
        ("a = ", "not what `nixherd token add` writes"),
        (TOML.replace("server =", "sever ="), "'sever' means nothing here"),
        (
            TOML.replace('server = "192.0.2.12:8006"', ""),
            "server is missing: HOST:PORT, the one that the token belongs to",
        ),
        (TOML.replace("192.0.2.12:8006", "https://a"), "'https://a' is not HOST:PORT"),
        (TOML.replace("192.0.2.12:8006", "a:65536"), "'a:65536' is not HOST:PORT"),
        (TOML.replace("AB:AB", "AB:XY"), "it is not a SHA-256 fingerprint"),
        (TOML.replace("fingerprint =", "#"), "either fingerprint or authorities says by what the server is known"),
        (TOML + 'authorities = "system"\n', "either fingerprint or authorities says by what the server is known"),
        (TOML.replace("fingerprint = ", "fingerprint = 1 #"), "fingerprint is not a string"),
        (
            TOML.replace("fingerprint = ", "authorities = [] #"),
            "authorities is empty: nobody could vouch for the server",
        ),
        (
            TOML.replace("fingerprint =", "authorities ="),
            'authorities is neither "system" nor a list of SHA-256 fingerprints',
        ),
    ],
)
def test_a_file_says_whose_the_token_is(file: Path, text: str, what: str) -> None:
    file.write_text(text)
    assert _refusal(file) == f"token file {file}: {what}; {REMEDY}"


@pytest.mark.parametrize(
    "server",
    [
        SERVER,
        Server("pve.example.org", 443, authorities=("ab" * 32, "cd" * 32)),
        Server("2001:db8::12", 8006),
    ],
)
def test_what_is_written_is_read_back(file: Path, server: Server) -> None:
    token = Token("nixherd@pve", "lab", SECRET, server)
    file.write_text(token.to_toml())
    assert Token.read(file) == token


@given(st.binary(max_size=200))
def test_no_content_is_more_than_one_clear_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_bytes(data)
    path.chmod(0o600)
    _refusal(path)
