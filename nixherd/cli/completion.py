"""What TAB completes beside commands: hosts, groups and guests of the fleet, its files, and names at the hypervisor.

Nothing here has an effect or asks anybody: what cannot be known at once is not offered. A shell takes what it is
offered as it is, so only plain words are. Which parameter is completed with what follows from its name and metavar.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from nixherd.base.errors import FAILURES
from nixherd.base.files import fleet_root
from nixherd.base.names import PLAIN_PATH
from nixherd.base.waiting import ahead
from nixherd.cli.front import Front

PATIENCE = 1.0  # seconds for the hypervisor's answer
_KINDS = ("guests", "hosts", "ids")
_PLAIN = re.compile(rf"(?!-)(?:{PLAIN_PATH}|[,])+")

Items = list[CompletionItem]
Complete = Callable[[click.Context, click.Parameter, str], Items]


def guests(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the names of guests."""
    return _offered(incomplete.lower(), _known(ctx)["guests"])


def hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the ids of hosts and the names of groups, also after a comma."""
    before, comma, _ = incomplete.rpartition(",")
    return _offered(incomplete, [f"{before}{comma}{name}" for name in _known(ctx)["hosts"]])


def one_host(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the ids of hosts."""
    return _offered(incomplete, _known(ctx)["ids"])


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Have the shell offer files and directories."""
    return [CompletionItem(incomplete, type="file")]


def facts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer our facts of hosts."""
    from nixherd.cli.fact_names import described

    return _offered(incomplete, described())


def secret_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the encrypted files below the fleet's directory, from there."""
    from nixherd.trust.secrets.places import Layout, from_fleet
    from nixherd.trust.secrets.rules import CONFIG

    root = fleet_root(_front(ctx).fleet_path)
    layout = Layout.of(root)
    belonging = [from_fleet(path, layout.prefix) for each in layout.belonging.values() for path in each]
    below = [path for path in belonging if not path.startswith("../") and Path(path).name != CONFIG]
    return _offered(incomplete, [path for path in below if path.startswith(incomplete) and _is_sops(root / path)])


def storages(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the names of the storages on the guest's node, or on the one that is named, or on the endpoint's."""

    def read(front: Front) -> Iterable[str]:
        endpoint = front.fleet.endpoint
        vm = _guest(front, ctx)
        node = ctx.params.get("node") or (front.fleet.node_of(vm) if vm else endpoint.node if endpoint else "")
        return [each.name for each in front.client.storages(node)] if node else []

    return _offered(incomplete, _of_hypervisor(ctx, read))


def snapshots(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer the names of the guest's snapshots."""

    def read(front: Front) -> Iterable[str]:
        vm = _guest(front, ctx)
        return [each.name for each in front.client.snapshots(front.fleet.node_of(vm), vm.vmid, vm.type)] if vm else []

    return _offered(incomplete, _of_hypervisor(ctx, read))


class Named(click.types.StringParamType):
    """A text of which TAB offers what there is."""

    def __init__(self, complete: Complete) -> None:
        self.complete = complete

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        return quietly(self.complete, ctx, param, incomplete)


def quietly(complete: Complete, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Offer what `complete` does, or nothing where that fails: a shell has no place for an error."""
    try:
        return complete(ctx, param, incomplete)
    except FAILURES:
        return []


HOST, SNAPSHOT, STORAGE, SECRET_FILE = map(Named, (one_host, snapshots, storages, secret_files))
_HOSTS, _FILES = Named(hosts), Named(files)
_BY_NAME = {"facts": Named(facts), "snapname": SNAPSHOT, "storage": STORAGE, "images": STORAGE}
_BY_METAVAR = {
    "HOST|GROUP": _HOSTS,
    **dict.fromkeys(("HOST", "HOST|NAME|KEY", "local|target|HOST"), HOST),
    **dict.fromkeys(("FILE", "FILE|URL", "DIR", "PATH"), _FILES),
}


def offer(command: click.Command) -> None:
    """Have TAB complete what is a plain text so far: by the parameter's name, else by its metavar."""
    for param in command.params:
        if param.type is click.STRING:
            is_host = isinstance(param, click.Argument) and param.name == "host"
            metavar = (param.metavar or "").strip("[].…")
            param.type = HOST if is_host else _BY_NAME.get(param.name or "", _BY_METAVAR.get(metavar, click.STRING))


def _offered(incomplete: str, names: Iterable[str]) -> Items:
    return [CompletionItem(name) for name in sorted({*names}) if name.startswith(incomplete) and _PLAIN.fullmatch(name)]


def _front(ctx: click.Context) -> Front:
    front, given = Front.of_environment(), ctx.find_root().params
    front.fleet_path = str(given.get("fleet") or front.fleet_path)
    front.token_file = given.get("token_file") or front.token_file
    front.guarded = False  # it asks, and changes nothing
    return front


def _guest(front: Front, ctx: click.Context) -> Any:
    from nixherd.cli.guests import names_of

    return names_of(front.fleet).get(str(ctx.params.get("guest") or "").lower())


def _is_sops(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and b"sops" in file.read_bytes()


def _of_hypervisor(ctx: click.Context, read: Callable[[Front], Iterable[str]]) -> Collection[str]:
    """List what the hypervisor says, if there is a token and it answers soon."""
    front, told, is_over = _front(ctx), list[str](), threading.Event()
    if not front.token_path.is_file() or front.fleet.endpoint is None:
        return ()

    def ask() -> None:
        try:
            told.extend(read(front))
        finally:
            is_over.set()

    ahead(ask)
    return told if is_over.wait(PATIENCE) else ()


def _known(ctx: click.Context) -> Mapping[str, list[str]]:
    return names_in(_front(ctx).fleet_path)


def names_in(directory: str) -> Mapping[str, list[str]]:
    """List the names in a fleet by kind, from a cache while no file of it changes."""
    from nixherd.cli.guests import names_of
    from nixherd.fleet.groups import groups_of
    from nixherd.fleet.load import load_fleet
    from nixherd.fleet.world import look

    root = fleet_root(directory)
    world = look(root)
    key = hashlib.sha256(repr(sorted(map(repr, world.fingerprint))).encode()).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "nixherd" / "completion.json"
    known = json.loads(cache.read_text()) if cache.exists() else {}
    if known.get("key") != key or not known.keys() >= {*_KINDS}:
        fleet = load_fleet(root, world)
        ids = sorted(fleet.hosts)
        known = {"key": key, "guests": sorted(names_of(fleet)), "hosts": sorted({*ids, *groups_of(fleet)}), "ids": ids}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known))
    return {kind: [*map(str, known[kind])] for kind in _KINDS}
