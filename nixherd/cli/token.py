"""`nixherd token`: which server the API token belongs to, said once by a person."""

import sys

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.errors import Usage
from nixherd.files import write_whole
from nixherd.proxmox.token import SHAPE, Server, Token
from nixherd.terminal import is_terminal, say


@click.group()
def token() -> None:
    """The API token, and the one server that may be given it."""


@token.command()
@click.option("--endpoint", metavar="HOST[:PORT]", help="The server; else the one in the definitions, after asking.")
@click.option("--fingerprint", metavar="SHA256", help="Its certificate's, as `pvenode cert info` shows it there.")
@click.option("--ca-file", type=click.Path(dir_okay=False), help="Who signed its certificate, instead: a PEM file.")
@click.option("--system-authorities", is_flag=True, help="Whom this system trusts signed it, instead.")
@click.option("--replace", is_flag=True, help="In place of the token that is there.")
@pass_front
def add(
    front: Front,
    endpoint: str | None,
    fingerprint: str | None,
    ca_file: str | None,
    system_authorities: bool,
    replace: bool,
) -> None:
    """Write the token file, for one server alone.

    The token, as pveum printed it, is typed on the terminal or comes as a line on stdin. Without a terminal --endpoint
    and one of --fingerprint, --ca-file and --system-authorities are needed. Nothing is sent anywhere.
    """
    file = front.token_path
    if file.exists() and not replace:
        raise Usage(f"token file {file} is there already; --replace puts this one in its place, --token-file elsewhere")
    ways = sum((bool(fingerprint), bool(ca_file), system_authorities))
    if ways > 1 or (ways and not endpoint):
        raise Usage("say --endpoint with one of --fingerprint, --ca-file and --system-authorities")
    server = _said(endpoint, fingerprint, ca_file) if endpoint and ways else _asked(front, endpoint)
    try:
        made = Token.parse(_secret(), server)
    except ValueError as error:
        raise Usage(f"the token is {error}; give it as pveum printed it") from None
    write_whole(file, made.to_toml())
    front.wrote = True
    say(f"{file}: {Token.read(file)} for {server}, known by {server.known_by}")


@token.command()
@json_option
@pass_front
def show(front: Front) -> None:
    """Say whose the token is and which server it belongs to; never its secret."""
    file = front.token_path
    found = Token.read(file)
    if wants_json(front.as_json):
        server = found.server
        about = {"file": str(file), "token": found.id, "server": str(server), "fingerprint": server.fingerprint}
        show_json({**about, "authorities": list(server.authorities)})
    else:
        say(f"{file}: {found} for {found.server}, known by {found.server.known_by}")


def _said(endpoint: str, fingerprint: str | None, ca_file: str | None) -> Server:
    """The server as the options name it. Usage when they do not."""
    try:
        return Server.parse(endpoint, fingerprint, _authorities(ca_file))
    except ValueError as error:
        said = f"--endpoint {endpoint}{f' --fingerprint {fingerprint}' if fingerprint else ''}"
        raise Usage(f"{said}: {error}; `pvenode cert info` on the node shows the fingerprint") from None


def _asked(front: Front, endpoint: str | None) -> Server:
    """The server that the definitions name, when the person at the terminal says that it is theirs."""
    if not is_terminal(sys.stdin):
        raise Usage("without a terminal say --endpoint with one of --fingerprint, --ca-file and --system-authorities")
    front.guarded = False
    declared = front.fleet.endpoint
    if declared is None:
        raise Usage("vms/definitions.nix: proxmox: no endpoint is declared; say --endpoint and --fingerprint")
    pinned = declared.fingerprint
    server = Server.of(declared, _authorities(None if pinned else declared.ca_file))
    if endpoint and _said(endpoint, server.fingerprint, None).host != server.host:
        raise Usage(f"vms/definitions.nix names {server}; say --fingerprint too, or correct --endpoint {endpoint}")
    say(f"The definitions name {server}, known by {server.known_by}.", err=True)
    say("On the node itself `pvenode cert info` shows what should stand here.", err=True)
    if not click.confirm("Is this your server, and may it be given the token?", err=True):
        raise Usage("nothing was written")
    return server


def _authorities(ca_file: str | None) -> list[str]:
    if ca_file is None:
        return []
    from nixherd.proxmox.token import fingerprints, read_authorities  # it takes a while

    return fingerprints(read_authorities(ca_file, "CA file {}"))


def _secret() -> str:
    """The token, typed unseen or piped."""
    if is_terminal(sys.stdin):
        typed: str = click.prompt(f"Token ({SHAPE})", hide_input=True, err=True)
        return typed
    return sys.stdin.readline(4096)
