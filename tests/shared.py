"""What the hosts of a test's run share, over a fleet that the test may change while the run goes on."""

from functools import partial
from pathlib import Path
from typing import Any

from nixherd.base.run import Run
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Fleet, Host
from nixherd.fleet.revisions import Tree
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.pyinfra_glue.context import Context
from nixherd.ssh.ssh_config import Answers


class Shared:
    """`context` is what a host of pyinfra has among its data."""

    def __init__(self, fleet: Fleet, token_file: Path) -> None:
        self.token_file = token_file
        self.run = Run(fleet.id)
        evaluator = Evaluator(fleet, self.run, partial(Tree, fleet.path))
        self.context = Context.of(evaluator, Hypervisor(fleet, token_file))

    @property
    def fleet(self) -> Fleet:
        return self.context.fleet

    @fleet.setter
    def fleet(self, fleet: Fleet) -> None:
        """Another fleet from now on; what was asked already stays."""
        object.__setattr__(self.context, "fleet", fleet)
        object.__setattr__(self.context, "flake", fleet.path)
        self.keys.fleet = self.hypervisor.fleet = fleet
        self.evaluator.path, self.evaluator._kinds = fleet.path, fleet.kinds
        self.evaluator._attributes = fleet.attributes
        self.evaluator.source = Tree(fleet.path)

    @property
    def keys(self) -> HostKeys:
        return self.context.keys

    @property
    def evaluator(self) -> Evaluator:
        return self.context.evaluator

    @property
    def builder(self) -> Builder:
        return self.context.builder

    @property
    def hypervisor(self) -> Hypervisor:
        return self.context.hypervisor

    def host(self, host_id: str) -> Host:
        return self.fleet.hosts[host_id]

    def asks(self, client: Any) -> None:
        """The hypervisor's API is this client from now on."""
        Hypervisor.guarded.of(self.hypervisor).value = client
        self.hypervisor.entered.value = client

    def asks_nobody(self) -> None:
        """The hypervisor is connected to when it is asked again."""
        Hypervisor.guarded.of(self.hypervisor).forget()
        self.hypervisor.entered.forget()

    def changed_ssh_config(self) -> None:
        """The operator's ssh_config is read anew."""
        object.__setattr__(self.context, "ssh_config", Answers())
