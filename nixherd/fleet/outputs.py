"""What a fleet's flake has, by its outputs: the names of its configurations, asked for once while its tree stays."""

import functools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nixherd.base.errors import DeadlineExceeded, FleetError, FleetInvalid, ProcessFailed
from nixherd.base.process import run
from nixherd.fleet.nix_values import NixOther, NixPath, shown_name
from nixherd.fleet.remembered import OUTPUTS, Memory
from nixherd.fleet.world import STORE, World
from nixherd.nix import commands as nix
from nixherd.nix.errors import explain_failure, is_circumstance

_DEADLINE = 600.0  # seconds; inputs may have to be fetched first


@dataclass(frozen=True)
class Node:
    """One of deploy-rs's: the names of what it says, and of its profiles."""

    settings: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """The names of configurations, and what the output nixherd.hosts says, unjudged.

    `hive` are the nodes of colmenaHive, `raw` those of colmena where that is all, `nodes` those of deploy-rs, of all of
    which `node_settings` are said; `is_clan`: of each system more may be said to clan. `unread` is why other outputs
    that are meant for deployments say nothing here, by their names.
    """

    systems: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    hosts: Any = field(default_factory=dict)
    hive: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    node_settings: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    is_clan: bool = False

    @property
    def has_hosts(self) -> bool:
        """Whether there is a configuration that could be a host's."""
        return bool(self.systems or self.homes or self.hive or self.raw)

    @classmethod
    def parse(cls, text: str, marker: str) -> "Outputs":
        """Parse what outputs.nix comes to. FleetError on anything else."""
        try:
            document = json.loads(text, object_hook=partial(_other_or_set, marker))
            kinds = ("nixosConfigurations", "homeConfigurations", "darwinConfigurations")
            systems, homes, macs = (tuple(map(str, document[kind])) for kind in kinds)
            nodes, settings = _nodes(document["deploy"])
            hive = tuple(map(str, document["hiveNodes"]))
            raw = tuple(name for name in document["rawNodes"] if document["raw"] and name not in _RESERVED)
            read = (systems, homes, macs, document["hosts"], hive, raw, nodes, settings, _unread(document))
            return cls(*read, is_clan=bool(document["clan"]))
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"nix eval printed something unexpected ({error!r}): {text[:200]}") from error


_NO_RAW = "has no meta, which every hive has; write colmena.meta.nixpkgs = import nixpkgs { … };"
_RESERVED = ("defaults", "meta", "network")
_NO_HIVE = "has no set of nodes; write colmenaHive = colmena.lib.makeHive { … };"


def _unread(document: Mapping[str, Any]) -> dict[str, str]:
    """Other tools' outputs of another shape than theirs, or of one that is not evaluated here."""
    found = {"colmenaHive": _NO_HIVE} if document["hive"] is False else {}
    if document["deploy"] and isinstance(kind := document["deploy"]["nodes"], str):
        found["deploy.nodes"] = f"is of type {kind}; it must be an attribute set of nodes"
    if document["raw"] is False:
        found["colmena"] = _NO_RAW
    for each in document["elsewhere"]:
        if each["names"]:
            line = f"write beside it, in the flake's outputs: {each['kind']} = self.{each['place']};"
            found[each["place"]] = (
                f"has {', '.join(map(shown_name, each['names']))} by system, which is not read; {line}"
            )
    return found


def _nodes(deploy: Mapping[str, Any] | None) -> tuple[dict[str, Node], tuple[str, ...]]:
    if deploy is None or isinstance(deploy["nodes"], str):
        return {}, ()
    nodes = {name: Node(tuple(each["settings"]), tuple(each["profiles"])) for name, each in deploy["nodes"].items()}
    return nodes, tuple(deploy["settings"])


def _other_or_set(marker: str, value: dict[str, Any]) -> Any:
    """A path that the flake names is one of the store, or of nobody here: what it holds is not looked at."""
    if marker not in value:
        return value
    text = str(value[marker])
    return NixPath(text, exists=False) if text.startswith("/") else NixOther(text)


def outputs_of(directory: Path, world: World) -> Outputs:
    """What the flake in a directory has. FleetInvalid with where it fails, FleetError for anything else."""
    path = world.fleet
    if path.startswith(f"{STORE}/"):
        return _in_store(path)
    memory = Memory.of(path, world)
    known = memory.recall(OUTPUTS)
    if isinstance(known, dict) and isinstance(known.get("text"), str):
        return Outputs.parse(known["text"], str(known.get("marker")))
    text, marker = _asked(path, directory)
    outputs = Outputs.parse(text, marker)
    memory.keep(OUTPUTS, {"text": text, "marker": marker})
    return outputs


@functools.lru_cache(maxsize=4)
def _in_store(path: str) -> Outputs:
    """Nothing changes there."""
    return Outputs.parse(*_asked(path, Path(path)))


def _asked(path: str, directory: Path, *, everywhere: bool = True) -> tuple[str, str]:
    marker = f"value {secrets.token_hex(16)}"  # which no flake can know
    try:
        return run(nix.outputs(path, marker, everywhere=everywhere), timeout=_DEADLINE).stdout, marker
    except DeadlineExceeded:
        what = f"the names of its configurations are not evaluated after {_DEADLINE:g} s"
        raise DeadlineExceeded(f"{directory}/flake.nix: {what}; `nix flake show` there says where it stands") from None
    except ProcessFailed as error:
        if not error.stderr and error.status >= 0:
            raise
        why = explain_failure(error, directory)
        if error.status < 0 or is_circumstance(why):
            raise FleetError(why) from error
        if everywhere:  # what is wrong may be a package, which hosts have no part in
            return _asked(path, directory, everywhere=False)
        raise FleetInvalid([why]) from error
