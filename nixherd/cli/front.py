"""What every command uses: the fleet, a guarded client, results for people or as JSON, one way to act on a guest."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.base.files import expanded, fleet_root
from nixherd.base.names import parse_seconds
from nixherd.base.run import Run
from nixherd.base.terminal import say
from nixherd.cli.output import can_ask, confirm, narrate, progress, show, wants_json
from nixherd.fleet.completing import completed
from nixherd.fleet.groups import said_for_all
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.load import load_fleet, require_directory
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.fleet.place import fleet_around, operators_data, tree_data
from nixherd.fleet.revisions import Tree
from nixherd.nix.declared import Declared
from nixherd.nix.evaluator import Evaluator

# What asks the hypervisor is imported where it is used: other commands start in half the time without it.
if TYPE_CHECKING:
    from nixherd.cli.recording import Recording
    from nixherd.deploy.commit_policy import Gate, Verified
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.guest.snapshots import Action
    from nixherd.proxmox.hypervisor import Definitions, Hypervisor
    from nixherd.proxmox.steps import Steps

T = TypeVar("T")
DEFAULT_TOKEN_FILE = "~/.config/nixherd/proxmox-token"


@dataclass
class Front:
    """One invocation. `as_json` is None without --json and --table; `guarded`: it may change guests.

    `yes`: nobody is asked for a confirmation.
    """

    fleet_path: str
    token_file: str | None = None
    as_json: bool | None = None
    dry_run: bool = False
    yes: bool = False
    guarded: bool = True
    wrote: bool = False
    """whether it has changed anything here"""
    gate: "Gate | None" = None
    is_part: bool = False
    """what it does is a part of what a command does, which has a result of its own: this one's goes beside that"""

    @classmethod
    def of_environment(cls) -> "Front":
        """Read the environment, else the defaults; options overrule both."""
        try:
            place = os.environ.get("FLEET") or str(fleet_around())
        except OSError:  # the current directory is gone
            place = "fleet"
        return cls(fleet_path=place, token_file=os.environ.get("PROXMOX_TOKEN_FILE"))

    @cached_property
    def definitions(self) -> "Definitions":
        from nixherd.proxmox.hypervisor import Definitions

        return Definitions.load(self.root)

    @cached_property
    def fleet(self) -> Fleet:
        """The fleet, loaded once; its warnings are said then."""
        if self.verified:
            fleet = self.verified.fleet(self.root)
        else:
            fleet = self.definitions.fleet if self.guarded else load_fleet(self.root)
        narrate(fleet.warnings)
        return fleet

    def complete(self, host_ids: Iterable[str]) -> None:
        """Read what configurations say of these hosts, where the fleet's files do not say it all."""
        self.__dict__["fleet"] = completed(self.fleet, host_ids, self.evaluator, whole=False)

    def require(self, gate: "Gate | None") -> None:
        """Take everything from the commit that this gate lets through."""
        self.gate = gate
        for known in ("fleet", "verified"):
            self.__dict__.pop(known, None)

    @cached_property
    def verified(self) -> "Verified | None":
        """The commit that everything comes from, where a gate is set."""
        return self.gate.verify() if self.gate else None

    @cached_property
    def run(self) -> Run:
        return Run(self.fleet.id)

    @cached_property
    def keys(self) -> HostKeys:
        return HostKeys(self.fleet, self.run)

    @cached_property
    def evaluator(self) -> Evaluator:
        evaluator = Evaluator(self.fleet, self.run, self.gate.verify if self.gate else partial(Tree, self.fleet.path))
        if self.verified:
            evaluator.source = self.verified
        return evaluator

    def declared(self, without: Collection[str] = ()) -> Sequence[Declared]:
        """Evaluate what each host declares of secrets, but for these."""
        hosts = [host_id for host_id in self.fleet.hosts if host_id not in without]
        return [self.evaluator.declared(hosts, host_id) for host_id in hosts]

    @cached_property
    def hypervisor(self) -> "Hypervisor":
        from nixherd.proxmox.hypervisor import Hypervisor

        return Hypervisor(self.fleet, self.token_path, self.definitions if self.guarded else None)

    @property
    def client(self) -> "Client":
        """The guarded client, made on first use; making it sends nothing."""
        return self.hypervisor.guarded

    @property
    def changed(self) -> bool:
        """Whether anything was changed: the hypervisor has taken a changing request, or it was done here."""
        return self.wrote or ("hypervisor" in self.__dict__ and self.hypervisor.accepted_changes > 0)

    @property
    def under_way(self) -> list[str]:
        return self.hypervisor.under_way if "hypervisor" in self.__dict__ else []

    def close(self) -> None:
        if "run" in self.__dict__:
            self.run.close()

    @cached_property
    def directory(self) -> Path:
        """The fleet's directory, without links; it need not exist, as a rollout may take any flake."""
        return fleet_root(self.fleet_path)

    @cached_property
    def root(self) -> Path:
        """The same. FleetInvalid where it does not exist."""
        require_directory(self.directory)
        return self.directory

    @property
    def token_path(self) -> Path:
        """The API token's file: from the options or environment, else group data, else the usual one."""
        return expanded(self.token_file or self.standing("proxmox_token_file") or DEFAULT_TOKEN_FILE)

    @cached_property
    def timeout(self) -> float:
        """Seconds for a task of the hypervisor: from the options, else group data. Usage when that is not a number."""
        given = self.standing("task_deadline")
        try:
            return 3600.0 if given is None else parse_seconds(given)
        except ValueError as error:
            raise Usage(f"group_data/all.py: task_deadline={error}") from None

    @cached_property
    def tree_data(self) -> dict[str, dict[str, Any]]:
        """What group data in the fleet's directory say, by group."""
        return tree_data(self.directory)

    def standing(self, name: str) -> Any:
        """Give the value that group_data/all.py sets for all hosts, the operator's first; None where none does."""
        defaults, *operators = operators_data(self.directory)
        values = [
            *said_for_all(name, [defaults]),
            *filter(lambda value: value is not None, [self.tree_data.get("all", {}).get(name)]),
            *said_for_all(name, operators),
        ]
        return values[-1] if values else None

    def read_back(self, what: str) -> Fleet:
        """Load the fleet's files after a change. FleetError, beginning with `what`, where they do not load."""
        try:
            return load_fleet(self.root)
        except FleetError as error:
            look = f"did a git hook change them? Look at them by hand (git -C {self.root} status)"
            raise FleetError(f"{what}, but the fleet's files do not load now: {error}; {look}") from error

    # Results

    @property
    def wants_json(self) -> bool:
        return wants_json(self.as_json)

    def show(self, document: Any, lines: Iterable[object] = ()) -> None:
        """Show a result: the document as JSON, or its lines for people."""
        if self.is_part:
            narrate(lines)
        else:
            show(document, lines, self.as_json)

    def show_steps(
        self,
        label: str,
        document: Mapping[str, Any],
        steps: Iterable[object],
        lines: Iterable[str] = (),
        *,
        seconds: float | None,
        reason: str = "",
    ) -> None:
        """Show the steps that were carried out in `seconds`, or without these what would be, then the lines.

        `reason`: why there were no steps.
        """
        names, planned = [str(step) for step in steps], seconds is None
        end: dict[str, Any] = {"planned": True} if planned else {"changed": bool(names)}
        end |= {} if seconds is None else {"seconds": round(seconds, 1)}
        end |= {"reason": reason} if reason else {}
        texts = [*(f"{'would ' if planned else ''}{name}" for name in names), *lines]
        nothing = f"nothing to do{f': {reason}' if reason else ''}"
        self.show({**document, "steps": names, **end}, (f"{label}: {text}" for text in texts or [nothing]))

    def confirm(self, question: str, refusal: str, *, plan: Iterable[object] = (), unattended: bool = False) -> None:
        """Show the plan, and ask the person at the terminal, unless --yes was given. Usage without their yes."""
        confirm(question, refusal, yes=self.yes, plan=plan, unattended=unattended)

    # Guests

    def placed(self, name: str) -> tuple[str, int, GuestType, Vm | None]:
        """Find a guest: its node, VMID and kind, and its definition if it has one. FleetError without such a guest."""
        from nixherd.base.errors import NotVisible
        from nixherd.cli.guests import placed_named
        from nixherd.proxmox.guest.identity import label
        from nixherd.proxmox.guest.observe import find

        meant = placed_named(self.fleet, name, self.client)
        if not isinstance(meant, Vm):  # it may be declared under another name
            vm = next((vm for vm in self.fleet.vms.values() if vm.vmid == meant.vmid), None)
            return meant.node, meant.vmid, meant.type, vm
        try:
            seen = find(self.client, self.fleet, meant)
        except NotVisible as error:  # nothing was to be changed: not a refusal
            raise FleetError(str(error)) from error
        if seen is None:
            raise FleetError(f"{label(meant)} does not exist on {self.fleet.node_of(meant)}")
        return seen[0], meant.vmid, meant.type, meant

    def timed(self, label: str, name: str, act: Callable[..., T]) -> tuple[T, float]:
        """Claim what has this name, and act with `progress` shown; return the result, and how many seconds it took."""
        self.run.claim(name)
        began, before = time.monotonic(), self.hypervisor.accepted_changes
        with self.recording(name) as recording, progress(label) as tell:
            recording.begin()
            try:
                return act(progress=tell), time.monotonic() - began
            finally:
                recording.changed = self.hypervisor.accepted_changes > before

    def recording(self, *hosts: str) -> "Recording":
        """A run of this command, about these hosts or guests, for the history."""
        from nixherd.cli.recording import Recording

        return Recording(self.directory, hosts)

    def act(self, name: str, action: "Action") -> int:
        """Carry the action out on a declared guest, or show what it would do; return the status.

        Status 1 where the guest is not as asked for then, and the action cannot make it so.
        """
        from nixherd.cli.guests import declared, left
        from nixherd.proxmox.guest.identity import label, require_may_change

        vm = declared(self.fleet, name, action.verb)
        require_may_change(vm, action.verb)
        seconds = remaining = None
        if self.dry_run:
            done = action.plan(self.client, self.fleet, vm)
        else:
            self._ask_first(vm, action)
            act = partial(action.run, self.client, self.fleet, vm, timeout=self.timeout)
            done, seconds = self.timed(label(vm), vm.host_id or vm.name, act)
        try:
            steps = action.left(self.client, self.fleet, vm)
            remaining = None if steps is None else left(vm, steps)
        finally:
            self._report(vm, done, remaining, seconds)  # what was done is reported, whatever can be seen after it
        return Exit.FAILED if any(each["remedy"] == "by hand" for each in remaining or ()) else Exit.DONE

    def _ask_first(self, vm: Vm, action: "Action") -> None:
        """Show what would be done, and ask, where that loses something, or interrupts the guest unexpectedly."""
        from nixherd.proxmox.guest.identity import label

        if self.yes or action.asks is False or not can_ask():
            return
        planned = list(action.plan(self.client, self.fleet, vm))
        if planned and (action.asks or any(step.interrupts for step in planned)):
            plan = [f"{label(vm)}: would {step}" for step in planned]
            self.confirm("Do this?", f"{label(vm)}: {action.verb}: not confirmed", plan=plan, unattended=True)

    def _report(self, vm: Vm, done: "Steps", left: list[dict[str, Any]] | None, seconds: float | None) -> None:
        """Show the steps, or why there were none; what was read back; what is `left`, None where unknown."""
        from nixherd.proxmox.guest.identity import label
        from nixherd.proxmox.steps import Outcome, why_nothing

        document = {"name": vm.name, "vmid": vm.vmid, **({} if left is None else {"left": left})}
        lines = list(done.lines) if isinstance(done, Outcome) else []
        document |= done.observed if isinstance(done, Outcome) else {}
        for each in left or ():
            lines.append(f"left{' by hand' if each['remedy'] == 'by hand' else ''}: {each['difference']}")
        self.show_steps(label(vm), document, done, lines, seconds=seconds, reason=why_nothing(done))
        if seconds is not None and (done or left) and (self.is_part or not self.wants_json):
            say(f"done in {seconds:.1f} s", err=True)


pass_front = click.make_pass_decorator(Front)
