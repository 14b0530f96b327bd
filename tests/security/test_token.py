"""The token belongs to one server: no fleet, and nothing in the environment, gets it sent to another."""

import io
import json
import os
import pty
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import ApiError, Exit, FleetError, Refused
from nixherd.cli.main import run
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.client import connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.token import Server, Token, fingerprints, read_authorities
from tests.conftest import DEFINITIONS_NIX
from tests.nixherd.cli.test_cli_completion import offered
from tests.nixherd.proxmox.fleets import FLEET
from tests.nixherd.proxmox.scripted import Answer, Scripted, make_certificate, serving

SECRET = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
POLICY = Policy.from_fleet(FLEET)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Scripted]:
    with serving(make_certificate(tmp_path / "mine.pem")) as server:
        yield server


@pytest.fixture
def thief(tmp_path: Path) -> Iterator[Scripted]:
    with serving(make_certificate(tmp_path / "thief.pem")) as server:
        server.answer = lambda _: Answer({"version": "9.2.11", "release": "9.2"})
        yield server


def token_of(endpoint: Endpoint, *authorities: str) -> Token:
    return Token("nixherd@pve", "lab", SECRET, Server.of(endpoint, authorities))


def declared(server: Scripted) -> str:
    there = f'host = "127.0.0.1"; port = {server.port}; fingerprint = "{server.fingerprint}"'
    return DEFINITIONS_NIX.replace('host = "127.0.0.1"', there)


def put_token(tmp_path: Path, token: Token) -> Path:
    file = tmp_path / "token"
    file.write_text(token.to_toml())
    file.chmod(0o600)
    return file


# another server


@pytest.mark.parametrize(
    "words",
    [["vm", "list"], ["vm", "status", "dev"], ["vm", "doctor"], ["vm", "stop", "dev"], ["vm", "storage"]],
    ids=" ".join,
)
def test_a_fleet_that_names_another_server_gets_no_token(
    make_fleet: Callable[..., Path],
    mine: Scripted,
    thief: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    fleet = make_fleet(definitions=declared(thief))
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", str(put_token(tmp_path, token_of(mine.endpoint()))))
    assert run(["--fleet", str(fleet), *words]) == Exit.REFUSED
    assert thief.asked == mine.asked == []
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"token nixherd@pve!lab belongs to 127.0.0.1:{mine.port}, and vms/definitions.nix names 127")
    assert "nothing was sent" in line
    assert SECRET not in line


def test_pyinfra_runs_give_it_to_nobody_else_either(
    make_fleet: Callable[..., Path], mine: Scripted, thief: Scripted, tmp_path: Path
) -> None:
    fleet = make_fleet(definitions=declared(thief))
    token = put_token(tmp_path, token_of(mine.endpoint()))
    env = {**os.environ, "FLEET": str(fleet), "PROXMOX_TOKEN_FILE": str(token), "HOME": str(tmp_path)}
    env["XDG_STATE_HOME"] = str(tmp_path / "state")
    pyinfra = shutil.which("pyinfra", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert pyinfra is not None
    argv = [pyinfra, "-y", "inventory.py", "--limit", "dev", "fact", "facts.proxmox.VmStatus"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.REFUSED, done.stderr
    assert "nothing was sent" in done.stdout + done.stderr
    assert thief.asked == mine.asked == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"host": "localhost"}, "belongs to 127.0.0.1:"),
        ({"host": "127.0.0.2"}, "belongs to 127.0.0.1:"),
        ({"host": "::ffff:127.0.0.1"}, "belongs to 127.0.0.1:"),
        ({"port": 8006}, "belongs to 127.0.0.1:"),
        ({"fingerprint": "ab" * 32}, "by its certificate's SHA-256 AB:AB"),
    ],
)
def test_whatever_differs_is_refused_before_anything_is_made(
    mine: Scripted, change: dict[str, object], why: str
) -> None:
    named = replace(mine.endpoint(), **change)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=why):
        connect(named, POLICY, token_of(mine.endpoint()))
    assert mine.asked == []


def test_another_authority_under_the_same_name_is_another_server(mine: Scripted, tmp_path: Path) -> None:
    """Who can push a commit can put other certificates behind the same path."""
    ca = tmp_path / "ca.pem"
    ca.write_text(mine.certificate.read_text())
    endpoint = mine.endpoint(ca_file=str(ca))
    token = token_of(endpoint, *fingerprints(read_authorities(str(ca), "{}")))
    mine.answer = lambda _: Answer({"version": "9.2.11", "release": "9.2"})
    connect(endpoint, POLICY, token).version()
    both = ca.read_text() + make_certificate(tmp_path / "more.pem").read_text()
    for text in (both, (tmp_path / "more.pem").read_text()):
        ca.write_text(text)
        with pytest.raises(Refused, match=r"knows 127\S+ by the authority"):
            connect(endpoint, POLICY, token)
    with pytest.raises(Refused, match="by the system's certificate authorities"):
        connect(replace(endpoint, ca_file=None), POLICY, token)
    assert len(mine.asked) == 1


def test_the_pin_holds_where_the_definitions_name_none(mine: Scripted, thief: Scripted) -> None:
    """Somebody else answers at the address, and a commit took the pin out of the definitions."""
    token = token_of(replace(thief.endpoint(), fingerprint=mine.fingerprint))
    with pytest.raises(ApiError, match="the token's file says"):
        connect(replace(thief.endpoint(), fingerprint=None), POLICY, token).version()
    assert thief.asked == []


# the environment

_UNDER = """
import sys
from nixherd.base.errors import ApiError
from nixherd.fleet.models import Endpoint, Fleet
from nixherd.proxmox.client import connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.token import Server, Token
endpoint = Endpoint("127.0.0.1", "prom", port=int(sys.argv[1]))
token = Token("a@pve", "b", "c", Server.of(endpoint))
try:
    print(connect(endpoint, Policy.from_fleet(Fleet("/f", "f", {})), token).version())
except ApiError as error:
    print(error)
"""


@pytest.mark.process
def test_the_environment_has_no_part_in_whom_we_trust(thief: Scripted, tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    (directory / "thief.pem").write_bytes(thief.certificate.read_bytes())
    keys = tmp_path / "keys"
    env = {"SSL_CERT_FILE": str(thief.certificate), "SSL_CERT_DIR": str(directory), "SSLKEYLOGFILE": str(keys)}
    env |= {"REQUESTS_CA_BUNDLE": str(thief.certificate), "CURL_CA_BUNDLE": str(thief.certificate)}
    argv = [sys.executable, "-c", _UNDER, str(thief.port)]
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert "certificate verify failed" in done.stdout, done.stderr
    assert thief.asked == []
    assert not keys.exists()
    # with these, Python's own defaults would have trusted it, and written the keys down
    control = "import socket, ssl, sys; c = ssl.create_default_context(); " + (
        "c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='127.0.0.1')"
    )
    subprocess.run([sys.executable, "-c", control, str(thief.port)], env={**os.environ, **env}, check=True)
    assert keys.exists()


def test_the_systems_authorities_are_those_of_where_it_was_built_to_look(
    thief: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = replace(thief.endpoint(), fingerprint=None)
    built_in = ssl.get_default_verify_paths()._replace(openssl_cafile=str(thief.certificate))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: built_in)
    assert connect(endpoint, POLICY, token_of(endpoint)).version().release == "9.2"
    gone = built_in._replace(openssl_cafile="/nowhere", openssl_capath="/nowhere")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: gone)
    with pytest.raises(FleetError, match="this system has no certificate authorities at /nowhere"):
        connect(endpoint, POLICY, token_of(endpoint))


# nixherd token add


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config" / "proxmox-token"
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", str(file))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"nixherd@pve!lab={SECRET}\n"))
    return file


def test_without_a_terminal(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["token", "add", "--endpoint", "192.0.2.12", "--fingerprint", "ab" * 32]
    assert run(words) == Exit.DONE
    assert added.stat().st_mode & 0o777 == 0o600
    assert Token.read(added) == Token("nixherd@pve", "lab", SECRET, Server("192.0.2.12", fingerprint="ab" * 32))
    assert run(["token", "show", "--json"]) == Exit.DONE
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    assert json.loads(captured.out[captured.out.index("{") :])["server"] == "192.0.2.12:8006"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "without a terminal say --endpoint"),
        (["--endpoint", "192.0.2.12"], "without a terminal say --endpoint"),
        (["--fingerprint", "ab" * 32], "say --endpoint with one of"),
        (["--endpoint", "a", "--fingerprint", "ab" * 32, "--system-authorities"], "say --endpoint with one of"),
        (["--endpoint", "https://a", "--fingerprint", "ab" * 32], "'https://a' is not HOST:PORT"),
        (["--endpoint", "a", "--fingerprint", "ab"], "it is not a SHA-256 fingerprint"),
        (["--endpoint", "a", "--ca-file", "/no/such.pem"], "CA file /no/such.pem cannot be used: No such file"),
    ],
)
def test_what_is_not_said_is_not_guessed(
    added: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "add", *words]) in (Exit.USAGE, Exit.REMOTE)
    [line] = capsys.readouterr().err.splitlines()
    assert why in line
    assert not added.exists()


def test_what_is_there_is_kept_unless_told(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added.parent.mkdir()
    added.write_text("mine")
    words = ["token", "add", "--endpoint", "192.0.2.12", "--system-authorities"]
    assert run(words) == Exit.USAGE
    assert "--replace" in capsys.readouterr().err
    assert added.read_text() == "mine"
    assert run([*words, "--replace"]) == Exit.DONE
    assert Token.read(added).server == Server("192.0.2.12")


def test_what_is_no_token_is_shown_to_nobody(
    added: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"nixherd@pve!lab:{SECRET}\n"))
    assert run(["token", "add", "--endpoint", "a", "--system-authorities"]) == Exit.USAGE
    captured = capsys.readouterr()
    assert "the token is not of the form" in captured.err
    assert SECRET not in captured.err + captured.out
    assert not added.exists()


@pytest.mark.parametrize(("answer", "status"), [("y", Exit.DONE), ("n", Exit.USAGE)])
def test_on_a_terminal_it_asks_once(
    make_fleet: Callable[..., Path], mine: Scripted, tmp_path: Path, answer: str, status: Exit
) -> None:
    file = tmp_path / "token"
    env = {**os.environ, "PROXMOX_TOKEN_FILE": str(file), "FLEET": str(make_fleet(definitions=declared(mine)))}
    here, there = pty.openpty()
    argv = [str(Path(sys.executable).parent / "nixherd"), "token", "add"]
    with subprocess.Popen(argv, env=env, stdin=there, stdout=there, stderr=there, start_new_session=True) as process:
        os.close(there)
        shown = _until(here, b"[y/N]: ")
        os.write(here, f"{answer}\n".encode())
        if answer == "y":
            shown += _until(here, b"=UUID): ")  # what is typed before it is asked for is thrown away
            os.write(here, f"nixherd@pve!lab={SECRET}\n".encode())
        shown += _until(here, None)
    os.close(here)
    assert process.returncode == status, shown
    assert b"pvenode cert info" in shown
    assert SECRET.encode() not in shown
    assert file.exists() == (status is Exit.DONE)
    if file.exists():
        assert Token.read(file).server == Server.of(mine.endpoint())
    assert mine.asked == []


def _until(terminal: int, words: bytes | None) -> bytes:
    """What is shown up to these words; None: to the end."""
    shown = b""
    while words is None or not shown.endswith(words):
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return shown
    return shown


# what a person wrote


@pytest.mark.parametrize(
    "words",
    [
        ["--token-file", "~nosuch/token", "vm", "list"],
        ["--token-file", "~nosuch/token", "token", "show"],
        ["--fleet", "~nosuch/fleet", "check"],
        ["--fleet", "~nosuch/fleet", "vm", "list"],
        ["publish", "cache", "--key-file", "~nosuch/key"],
    ],
    ids=" ".join,
)
def test_the_home_of_nobody_is_wrong_usage(
    make_fleet: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet()))
    assert run(words) == Exit.USAGE
    assert "the user does not exist here; write the whole path" in capfd.readouterr().err


def test_the_home_of_nobody_completes_nothing() -> None:
    assert offered("--fleet", "~nosuch/fleet", "vm", "start", "") == []


def test_a_token_file_that_never_ends_is_none(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token = " + "[" * 5000)
    file.chmod(0o600)
    with pytest.raises(FleetError, match="not what `nixherd token add` writes"):
        Token.read(file)
