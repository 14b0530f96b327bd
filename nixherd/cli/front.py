"""What every command has: the fleet, a guarded client, and one way of carrying out an action."""

import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nixherd
from nixherd.cli.output import narrate, progress, show_json, wants_json
from nixherd.durations import parse_seconds
from nixherd.errors import FleetError, Usage
from nixherd.exit_codes import Exit
from nixherd.files import expanded, fleet_root
from nixherd.fleet.group_data import said_for_all
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.session import Session
from nixherd.terminal import say

# What asks the hypervisor is imported where it is used: commands that do not start in half the time without it.
if TYPE_CHECKING:
    from nixherd.deploy.commit_policy import Gate, Verified
    from nixherd.proxmox.answers import Resource
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.guard.definitions import Definitions
    from nixherd.proxmox.guest.verb import Action
    from nixherd.proxmox.steps import Steps

CHECKOUT = Path(nixherd.__path__[0]).parent
DEFAULT_TOKEN_FILE = "~/.config/nixherd/proxmox-token"


@dataclass
class Front:
    """One invocation. `as_json` is None where nobody said; `guarded`: it may ask the hypervisor to change something."""

    fleet_path: str
    token_file: str | None = None
    as_json: bool | None = None
    dry_run: bool = False
    guarded: bool = True
    wrote: bool = False
    """whether it has changed anything here"""
    gate: "Gate | None" = None
    _client: "Client | None" = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> "Front":
        """What the environment says, else what is usual; options come on top."""
        return cls(
            fleet_path=os.environ.get("FLEET") or "fleet",
            token_file=os.environ.get("PROXMOX_TOKEN_FILE"),
        )

    @cached_property
    def definitions(self) -> "Definitions":
        from nixherd.proxmox.guard.definitions import Definitions

        return Definitions.load(self.root)

    @cached_property
    def fleet(self) -> Fleet:
        """Loaded once; what its author should know is said then."""
        if self.verified:
            fleet = self.verified.fleet(self.root)
        else:
            fleet = self.definitions.fleet if self.guarded else load_fleet(self.root)
        narrate(fleet.warnings)
        return fleet

    def require(self, gate: "Gate | None") -> None:
        """Have everything come from the commit that this gate lets through."""
        self.gate = gate
        for known in ("fleet", "verified"):
            self.__dict__.pop(known, None)

    @cached_property
    def verified(self) -> "Verified | None":
        """The commit that everything comes from, where a gate is set."""
        return self.gate.verify() if self.gate else None

    @cached_property
    def session(self) -> Session:
        session = Session(self.fleet, self.token_path, self.definitions if self.guarded else None, gate=self.gate)
        if self.verified:
            session.take(self.verified)
        return session

    @property
    def client(self) -> "Client":
        """Made on first use; sends nothing by itself."""
        if self._client is None:
            self._client = self.session.connect()
        return self._client

    @property
    def changed(self) -> bool:
        """Whether anything was changed: the hypervisor has taken a changing request, or it was done here."""
        return self.wrote or (self._client is not None and self._client.accepted_changes > 0)

    @property
    def under_way(self) -> list[str]:
        return sorted(self._client.under_way) if self._client else []

    def close(self) -> None:
        if "session" in self.__dict__:
            self.session.close()

    @cached_property
    def root(self) -> Path:
        """The fleet's directory, without links; nothing in it is read yet."""
        return fleet_root(self.fleet_path)

    @property
    def token_path(self) -> Path:
        """The API token's file: as said here, else in group data, else the usual one."""
        return expanded(self.token_file or self.standing("proxmox_token_file") or DEFAULT_TOKEN_FILE)

    @cached_property
    def timeout(self) -> float:
        """Seconds for a task of the hypervisor: as said here, else in group data. Usage when that is not a number."""
        given = self.standing("task_deadline")
        try:
            return 3600.0 if given is None else parse_seconds(given)
        except ValueError as error:
            raise Usage(f"group_data/all.py: task_deadline={error}") from None

    def standing(self, name: str) -> Any:
        """What group_data/all.py says for all hosts; None where it says nothing."""
        return next(reversed(list(said_for_all(name, [CHECKOUT / "group_data"]))), None)

    # Guests

    def placed(self, name: str) -> tuple[str, int, GuestType, Vm | None]:
        """Its node, VMID and kind, and its definition if it has one. FleetError when there is no such guest."""
        from nixherd.cli.guests import placed_named
        from nixherd.proxmox.errors import NotVisible
        from nixherd.proxmox.guest.identity import label
        from nixherd.proxmox.guest.observe import find

        def name_of(row: "Resource") -> str | None:
            config = self.client.config(row.node, row.vmid, row.type)
            return config.name if config else None

        wanted = placed_named(
            self.fleet, name, lambda: self.client.resources(), name_of, lambda vmid: self.client.presence(vmid)
        )
        if not isinstance(wanted, Vm):  # one that is declared under another name is that one all the same
            vm = next((vm for vm in self.fleet.vms.values() if vm.vmid == wanted.vmid), None)
            return wanted.node, wanted.vmid, wanted.type, vm
        try:
            found = find(self.client, self.fleet, wanted)
        except NotVisible as error:  # the server's word, where nothing was to be changed
            raise FleetError(str(error)) from error
        if found is None:
            raise FleetError(f"{label(wanted)} does not exist on {self.fleet.node_of(wanted)}")
        return found[0], wanted.vmid, wanted.type, wanted

    def act(self, name: str, action: "Action") -> None:
        """Carry the action out on a declared guest, or show what it would do; say how it ended and how long it took.

        Ends with 1 where the guest is not as asked for then, and this cannot make it so: that is said as well.
        """
        from nixherd.cli.guests import declared
        from nixherd.proxmox.guest.identity import label, require_may_change

        vm = declared(self.fleet, name, action.verb)
        require_may_change(vm, action.verb)
        began = time.monotonic()
        if self.dry_run:
            done = action.plan(self.client, self.fleet, vm)
            how: dict[str, Any] = {"planned": True}
        else:
            self.session.claim(vm.host_id or vm.name)
            with progress(label(vm)) as say:
                done = action.run(self.client, self.fleet, vm, timeout=self.timeout, progress=say)
            how = {"seconds": time.monotonic() - began}
        left = None
        try:
            left = self._left(action, vm)
        finally:
            self._report(vm, done, left, **how)  # what was done is said, whatever can be seen after it
        if any(each["remedy"] == "by hand" for each in left or ()):
            raise click.exceptions.Exit(int(Exit.FAILED))

    def _left(self, action: "Action", vm: Vm) -> list[dict[str, Any]] | None:
        """What the action leaves undone, in the words of `vm diff`; None where it is none that can tell."""
        from nixherd.cli.guests import difference, differing

        found = action.left(self.client, self.fleet, vm)
        return None if found is None else [difference(vm, step) for step in differing(vm, found)]

    def _report(
        self,
        vm: Vm,
        done: "Steps",
        left: list[dict[str, Any]] | None = None,
        *,
        planned: bool = False,
        seconds: float | None = None,
    ) -> None:
        """Steps, or why there were none; what was read back in the end, and what is left undone."""
        from nixherd.proxmox.guest.identity import label
        from nixherd.proxmox.steps import Outcome, why_nothing

        steps, why = [str(step) for step in done], why_nothing(done)
        if wants_json(self.as_json):
            about: dict[str, Any] = {"name": vm.name, "vmid": vm.vmid, "steps": steps}
            about |= {"planned": True} if planned else {"changed": bool(steps), "seconds": round(seconds or 0, 1)}
            about |= {"reason": why} if why else {}
            about |= {} if left is None else {"left": left}
            show_json({**about, **(done.observed if isinstance(done, Outcome) else {})})
            return
        for step in steps:
            say(f"{label(vm)}: {'would ' if planned else ''}{step}")
        for line in done.lines if isinstance(done, Outcome) else ():
            say(f"{label(vm)}: {line}")
        for each in left or ():
            say(f"{label(vm)}: left{' by hand' if each['remedy'] == 'by hand' else ''}: {each['difference']}")
        if not steps and not left:
            say(f"{label(vm)}: nothing to do{f': {why}' if why else ''}")
        elif not planned:
            say(f"done in {seconds or 0:.1f} s", err=True)


pass_front = click.make_pass_decorator(Front)
