"""nodes.py's one call: the nodes of the hypervisor that the definitions name, as hosts of one deploy alone."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.argv import keep_streams, require_text
from nixherd.errors import Usage
from nixherd.files import expanded
from nixherd.fleet.group_data import NODES, check_data
from nixherd.fleet.groups import check_selection
from nixherd.fleet.models import Fleet
from nixherd.fleet.revisions import Tree
from nixherd.nix.evaluator import Evaluator
from nixherd.proxmox.guard.definitions import Definitions
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.pyinfra_glue import cli
from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.deploy_file import DeployFile, declared
from nixherd.pyinfra_glue.inventory import Entry, data_said, fleet_directory, or_end, parsed_data, token_file_of
from nixherd.run import Run
from nixherd.terminal import say

_FACTS = "facts.proxmox_host."
_ONE = ("host_key", "ssh_hostname")


def nodes_beside(file: str) -> dict[str, list[Entry]]:
    """The nodes as `@node/NAME`, in the group `nodes`. Their data are `context`, `host_id`, `node` and `address`.

    Nodes are logged in to by what is named here and nothing else: `exec`, other deploys and other facts end the
    program, and so does a run that names no node.
    """
    context = click.get_current_context(silent=True)
    options: dict[str, Any] = context.params if context else {}
    here = Path(file).resolve().parent
    with or_end("reading the nodes", options):
        if context:
            keep_streams()
            require_text(sys.argv[1:])
            check_words(options.get("operations") or ())
            check_data(parsed_data(options), NODES)
        definitions = Definitions.load(fleet_directory(here))
        nodes = nodes_of(definitions.fleet)
        if context:
            check_selection_of_nodes(nodes, options)
        fleet, run = definitions.fleet, Run(definitions.fleet.id)
        hypervisor = Hypervisor(fleet, expanded(token_file_of(here, options)), definitions)
        shared = Context.of(Evaluator(fleet, run, partial(Tree, fleet.path)), hypervisor)
        if context:
            for warning in fleet.warnings:
                say(warning, err=True)
            context.call_on_close(run.close)
            cli.put_right(context, shared)
    entries: list[Entry] = [
        (f"@node/{name}", {"context": shared, "host_id": f"node {name}", "node": name, "address": address})
        for name, address in nodes.items()
    ]
    return {"all": entries, "nodes": [f"@node/{name}" for name in nodes]}


def nodes_of(fleet: Fleet) -> dict[str, str]:
    """By name, where a node is: the endpoint's is taken to be at its address. Usage where no node is declared."""
    if fleet.endpoint is None:
        raise Usage("vms/definitions.nix: proxmox: no node is declared; add host and node")
    named = dict.fromkeys((fleet.endpoint.node, *sorted(fleet.node_of(vm) for vm in fleet.vms.values())))
    return {name: fleet.endpoint.host.strip("[]") if name == fleet.endpoint.node else name for name in named}


def check_words(words: Sequence[str]) -> None:
    plain = [word for word in words if "=" not in word]
    files = declared(words)
    if plain == ["debug-inventory"] or (files and all(map(_is_for_nodes, files.values()))):
        return
    if plain[:1] == ["fact"] and plain[1:] and all(word.startswith(_FACTS) for word in plain[1:]):
        return
    raise Usage(
        f"{' '.join(words)}: nodes.py is for deploys/proxmox_host.py and for facts of {_FACTS.rstrip('.')} alone; "
        "a node of the hypervisor is logged in to for nothing else"
    )


def _is_for_nodes(declarations: Sequence[DeployFile]) -> bool:
    return bool(declarations) and all(each.for_nodes for each in declarations)


def check_selection_of_nodes(nodes: dict[str, str], options: dict[str, Any]) -> None:
    names: dict[str, list[str]] = {"all": list(nodes), "nodes": list(nodes)}
    limit = [part for word in options.get("limit") or () for part in word.split(",")]
    if not limit and options.get("operations") and tuple(options["operations"]) != ("debug-inventory",):
        raise Usage(f"which node? Say --limit {next(iter(nodes))} (there are: {', '.join(nodes)})")
    selected = check_selection(limit, names, "--limit") if limit else set()
    if len(selected) > 1 and (said := [name for name in _ONE if data_said(options, name)]):
        raise Usage(f"--data {said[0]} is one node's, but several are selected; add --limit NODE")
