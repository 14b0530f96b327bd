"""What a run of pyinfra is about: the one value among a host's data that holds what all hosts of the run share."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from nixherd.base.waiting import OncePer
from nixherd.deploy.rollout import Rollouts
from nixherd.fleet.host_keys import HostKeys
from nixherd.gate.results import Result
from nixherd.link.link import Surroundings
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.flakes import Flake
from nixherd.proxmox.hypervisor import Hypervisor


class RollCall:
    """Waits until it is known of each host whether anything answers there, and then begins with those where it does.

    `begin` is called once, with their ids in order, by whoever reports the last one.
    """

    def __init__(self, hosts: Collection[str], begin: Callable[[tuple[str, ...]], None]) -> None:
        self._awaited, self._present, self._begin = set(hosts), set[str](), begin
        self._guard = threading.Lock()

    def report(self, host_id: str, *, present: bool) -> None:
        """What is known of a host; the first report of it counts."""
        with self._guard:
            if host_id not in self._awaited:
                return
            self._awaited.remove(host_id)
            if present:
                self._present.add(host_id)
            is_last = not self._awaited
        if is_last and self._present:
            self._begin(tuple(sorted(self._present)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Context(Surroundings):
    """Made by the inventory; what is below `pyinfra_glue` takes the parts of it that it needs.

    `flake` is the fleet as it was named, a locked reference or its directory; `roll_call` is there where something
    waits to begin with the hosts that answer.
    """

    evaluator: Evaluator
    builder: Builder
    flake: str
    must_be_signed: bool = False
    roll_call: RollCall | None = None
    rollouts: Rollouts = field(default_factory=Rollouts)
    gate: OncePer[tuple[str, ...], list[Result]] = field(default_factory=lambda: OncePer("the quality gate"))

    @classmethod
    def of(cls, evaluator: Evaluator, hypervisor: Hypervisor, flake: Flake | None = None, **more: Any) -> "Context":
        """The context of the run of `evaluator`; `flake` is the fleet where it was named by a reference."""
        fleet, run = hypervisor.fleet, evaluator.run
        return cls(
            *(fleet, run, HostKeys(fleet, run), hypervisor),
            evaluator=evaluator,
            builder=Builder(evaluator),
            flake=flake.url if flake else fleet.path,
            **more,
        )

    def to_json(self) -> dict[str, str]:
        """What `pyinfra inventory.py debug-inventory` shows of it."""
        return {"fleet": self.fleet.path, "token_file": str(self.hypervisor.token_file)}
