"""`nixherd token`: the API token, and the one server that it is for, as a person has confirmed it."""

import sys
from pathlib import Path

import click

from nixherd.base.errors import Usage
from nixherd.base.files import write_whole
from nixherd.base.terminal import is_terminal, say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import Group
from nixherd.cli.parameters import json_option
from nixherd.fleet.models import NO_ENDPOINT
from nixherd.proxmox.token import SHAPE, Server, Token


@click.group(cls=Group)
def token() -> None:
    """The API token, and the one server that may be given it."""


@token.command()
@click.option("--endpoint", metavar="HOST[:PORT]", help="The server; else the one in the definitions, after asking.")
@click.option("--fingerprint", metavar="SHA256", help="Its certificate's, as `pvenode cert info` shows it there.")
@click.option("--ca-file", type=click.Path(dir_okay=False), help="Who signed its certificate, instead: a PEM file.")
@click.option("--system-authorities", "system", is_flag=True, help="Whom this system trusts signed it, instead.")
@click.option("--replace", is_flag=True, help="In place of the token that is there.")
@pass_front
def add(
    front: Front, endpoint: str | None, fingerprint: str | None, ca_file: str | None, system: bool, replace: bool
) -> None:
    """Write the token file, for one server alone.

    The token, as pveum printed it, is typed on the terminal or comes as a line on stdin. Without a terminal --endpoint
    and one of --fingerprint, --ca-file and --system-authorities are needed. Nothing is sent anywhere.
    """
    file = front.token_path
    if file.exists() and not replace:
        raise Usage(f"token file {file} is there already; --replace puts this one in its place, --token-file elsewhere")
    ways = sum((bool(fingerprint), bool(ca_file), system))
    if ways > 1 or (ways and not endpoint):
        raise Usage("say --endpoint with one of --fingerprint, --ca-file and --system-authorities")
    server = _server_given(endpoint, fingerprint, ca_file) if endpoint and ways else _server_confirmed(front, endpoint)
    try:
        made = Token.parse(_secret(), server)
    except ValueError as error:
        raise Usage(f"the token is {error}; give it as pveum printed it") from None
    with front.recording() as recording:
        recording.begin()
        write_whole(file, made.to_toml())
    front.wrote = True
    say(_line(file, Token.read(file)))


@token.command()
@json_option
@pass_front
def show(front: Front) -> None:
    """Show whose the token is and which server it is for; never its secret."""
    file = front.token_path
    token = Token.read(file)
    server = token.server
    document = {"file": str(file), "token": token.id, "server": str(server), "fingerprint": server.fingerprint}
    front.show({**document, "authorities": list(server.authorities)}, [_line(file, token)])


def _line(file: Path, token: Token) -> str:
    return f"{file}: {token} for {token.server}, known by {token.server.known_by}"


def _server_given(endpoint: str, fingerprint: str | None, ca_file: str | None) -> Server:
    """Read the server from the options. Usage when they do not name one."""
    try:
        return Server.parse(endpoint, fingerprint, _authorities(ca_file))
    except ValueError as error:
        options = f"--endpoint {endpoint}{f' --fingerprint {fingerprint}' if fingerprint else ''}"
        raise Usage(f"{options}: {error}; `pvenode cert info` on the node shows the fingerprint") from None


def _server_confirmed(front: Front, endpoint: str | None) -> Server:
    """Take the server that the definitions name, once the person at the terminal has confirmed it."""
    if not is_terminal(sys.stdin):
        raise Usage("without a terminal say --endpoint with one of --fingerprint, --ca-file and --system-authorities")
    front.guarded = False
    declared = front.fleet.endpoint
    if declared is None:
        raise Usage(f"{NO_ENDPOINT}; say --endpoint and --fingerprint")
    pinned = declared.fingerprint
    server = Server.of(declared, _authorities(None if pinned else declared.ca_file))
    if endpoint and _server_given(endpoint, server.fingerprint, None).host != server.host:
        raise Usage(f"vms/definitions.nix names {server}; say --fingerprint too, or correct --endpoint {endpoint}")
    say(f"The definitions name {server}, known by {server.known_by}.", err=True)
    say("On the node itself `pvenode cert info` shows what should stand here.", err=True)
    front.confirm("Is this your server, and may it be given the token?", "the token was not written")
    return server


def _authorities(ca_file: str | None) -> list[str]:
    if ca_file is None:
        return []
    from nixherd.proxmox.token import fingerprints, read_authorities  # a slow import

    return fingerprints(read_authorities(ca_file, "CA file {}"))


def _secret() -> str:
    """Read the token, typed unseen or piped."""
    if is_terminal(sys.stdin):
        typed: str = click.prompt(f"Token ({SHAPE})", hide_input=True, err=True)
        return typed
    return sys.stdin.readline(4096)
