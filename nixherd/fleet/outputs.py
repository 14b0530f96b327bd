"""What a fleet's flake has, by its outputs: the names of its configurations, asked for once while its tree stays."""

import functools
import json
import secrets
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nixherd.base.errors import DeadlineExceeded, FleetError, FleetInvalid, ProcessFailed
from nixherd.base.process import run
from nixherd.fleet.nix_values import NixOther, NixPath
from nixherd.fleet.remembered import OUTPUTS, Memory
from nixherd.fleet.world import STORE, World
from nixherd.nix import commands as nix
from nixherd.nix.errors import explain_failure, is_circumstance

_DEADLINE = 600.0  # seconds; inputs may have to be fetched first


@dataclass(frozen=True)
class Outputs:
    """The names of configurations, and what the output nixherd.hosts says, unjudged."""

    systems: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    hosts: Any = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, marker: str) -> "Outputs":
        """Parse what outputs.nix comes to. FleetError on anything else."""
        try:
            document = json.loads(text, object_hook=partial(_other_or_set, marker))
            kinds = ("nixosConfigurations", "homeConfigurations", "darwinConfigurations")
            systems, homes, macs = (tuple(map(str, document[kind])) for kind in kinds)
            return cls(systems, homes, macs, document["hosts"])
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"nix eval printed something unexpected ({error!r}): {text[:200]}") from error


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


def _asked(path: str, directory: Path) -> tuple[str, str]:
    marker = f"value {secrets.token_hex(16)}"  # which no flake can know
    try:
        return run(nix.outputs(path, marker), timeout=_DEADLINE).stdout, marker
    except DeadlineExceeded:
        what = f"the names of its configurations are not evaluated after {_DEADLINE:g} s"
        raise DeadlineExceeded(f"{directory}/flake.nix: {what}; `nix flake show` there says where it stands") from None
    except ProcessFailed as error:
        if not error.stderr and error.status >= 0:
            raise
        why = explain_failure(error, directory)
        if error.status < 0 or is_circumstance(why):
            raise FleetError(why) from error
        raise FleetInvalid([why]) from error
