"""`nixherd serve`: the status as pages, JSON and metrics over HTTP, looked at again and again."""

import re
import time
from collections.abc import Sequence
from typing import Any

import click

from nixherd.base.errors import Usage
from nixherd.base.files import expanded
from nixherd.base.names import many
from nixherd.base.terminal import say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.metrics import status_document, status_options
from nixherd.cli.parameters import Text, whole_seconds

LISTEN = "127.0.0.1:8484"
EVERY = 60  # seconds


def _address(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[3]) > 65535:
        raise ValueError(f"{text} is not ADDRESS:PORT; write one like {LISTEN} or [::1]:8484")
    return found[1] or found[2], int(found[3])


class HostName(click.ParamType):  # type: ignore[type-arg]
    """A name that a browser may ask for."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text, re.ASCII):
            self.fail(f"{text!r} is not a name that browsers ask for; write one like status.example.org", param, ctx)
        return text


@click.command()
@status_options
@click.option("--listen", "address", type=Text("address", _address), metavar="ADDRESS:PORT", default=LISTEN,
              help="Where to listen; port 0 is any free one. Others than loopback need --token-file.")  # fmt: skip
@click.option("--socket", "place", metavar="PATH", help="Listen on a Unix socket of this account's alone instead.")
@click.option("--host-name", "host_names", type=HostName(), multiple=True, metavar="NAME",
              help="Answer to this name, too; may be repeated.")  # fmt: skip
@click.option("--token-file", "token_file", metavar="FILE", help="Answer those alone who know the token in FILE.")
@click.option("--every", type=whole_seconds(1), metavar="SECONDS", default=str(EVERY), help="How often to look.")
@pass_front
@click.pass_context
def serve(
    context: click.Context,
    front: Front,
    /,
    hosts: Sequence[str],
    address: tuple[str, int],
    place: str | None,
    host_names: Sequence[str],
    token_file: str | None,
    every: int,
    **options: Any,
) -> int:
    """Serve what runs where, for reading: / and /hosts/NAME.html, /status.json, /metrics.

    It listens on loopback, where everybody who has an account on this machine may read it, and answers to no name but
    localhost and those of --host-name. The token is given as `Authorization: Bearer TOKEN`, or once as /?token=TOKEN.
    Ctrl-C is its usual end, with status 0.
    """
    from nixherd.overview.serve import listen, listen_on_socket, read_token
    from nixherd.overview.shown import Shown

    if place and context.get_parameter_source("address") is not click.core.ParameterSource.DEFAULT:
        raise Usage("--socket takes the place of --listen; give one of them")
    front.root  # noqa: B018  a fleet that does not exist is said before anything is served
    look = _look(front, hosts, **options)
    token = read_token(expanded(token_file)) if token_file else None
    shown = Shown()
    if place:
        serving = listen_on_socket(shown, expanded(place), host_names=host_names, token=token)
    else:
        serving = listen(shown, *address, host_names=host_names, token=token)
    say(serving.url)
    try:
        while True:
            began = time.monotonic()
            shown.look(look)
            say(shown.problem or f"{many(_number(shown), 'host')} looked at", err=True)
            time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        return 0
    finally:
        serving.close()


def _number(shown: Any) -> int:
    return len(shown.content.document["hosts"]) if shown.content else 0


def _look(front: Front, hosts: Sequence[str], **options: Any) -> Any:
    """What gathers anew: from the machines, or from a file that somebody else writes. In this thread, as Ctrl-C ends
    what it runs."""
    from nixherd.cli.gathering import gather_afresh
    from nixherd.cli.page import histories

    if options["source"] is not None:
        return lambda: (status_document(front, hosts, **options), {})
    how: dict[str, Any] = {"evaluate": not options["no_eval"], "vm": not options["no_vm"]}
    how |= {name: options[name] for name in ("exclude", "data")}
    return lambda: (gather_afresh(front, hosts, **how).to_json(), histories(front))
