"""A run's link to a machine of the fleet: what pyinfra's data say of it, and what the run has to do there."""

import getpass
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import StateStage
from pyinfra.connectors.local import LocalConnector
from typing_extensions import override

from nixherd.base.errors import FAILURES, FleetError, Misused
from nixherd.base.terminal import worded
from nixherd.fleet.models import Access, Host
from nixherd.link import proving
from nixherd.link.link import Link
from nixherd.locate import reach
from nixherd.locate.reach import Epoch, Hints, Look, Place
from nixherd.overview.last_seen import SeenBefore
from nixherd.pyinfra_glue.connector import PinnedConnector


class MachineConnector(PinnedConnector, Link):  # type: ignore[misc]  # its client is not pyinfra's
    """Finds its host and connects to it; `place` is where it is connected now."""

    _installs: bool = False
    _has_the_word: object = None
    """the connection on which a guest has proved itself for being wiped"""

    # What the inventory says of this host

    @property
    def fleet_host(self) -> Host:
        return self.context.fleet.hosts[self.host.data.host_id]

    @property
    def access(self) -> Access:
        """How far the machine lets us in."""
        return Access.SHELL if self.here else self.fleet_host.access

    @property
    def hints(self) -> Hints:
        """What the operator said of this machine. Misused when it was said of several at once."""
        if self.is_asked:
            return Hints()
        names = {"ssh_hostname", "host_key"} & self.state.inventory.get_override_data().keys()
        if names:
            self._require_one(min(names))
        return Hints.of({name: self.host.data.get(name) for name in ("ssh_hostname", "host_key", "install_user")})

    def _require_one(self, name: str) -> None:
        if sum(map(self.state.is_host_in_limit, self.state.inventory)) > 1:
            raise Misused(f"--data {name} is one machine's, but several hosts are selected; add --limit HOST")

    @cached_property
    def here(self) -> LocalConnector | None:
        """This machine's own shell, where the run is on the host itself. Misused when several are selected."""
        if not (self.host.data.get("local") and self.state.is_host_in_limit(self.host)):
            return None
        self._require_one("local")
        return LocalConnector(self.state, self.host)

    @property
    def executing(self) -> bool:
        return self.state.current_stage >= StateStage.Execute

    @property
    def installs(self) -> bool:
        """Whether this run installs the machine, so that a clone or an installer has a part in it."""
        return self._installs

    @installs.setter
    def installs(self, value: bool) -> None:
        self._installs = self._installs or value
        if self._installs and self.place and self._lacks_proof(self.place):
            self._look_anew()

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """What this run has any business with on this machine."""
        return tuple(Epoch) if self.installs else (Epoch.FINAL,)

    def _lacks_proof(self, place: Place) -> bool:
        """Whether this is a guest whose agent has to vouch for it, found without it."""
        vm = self.context.fleet.vm_of(self.fleet_host.id)
        return not self.here and reach.is_proven_by_agent(vm) and not (place.identity and place.identity.has_agent)

    def _look_anew(self) -> None:
        """Find the guest through the hypervisor, now that it is to be installed; who plans only goes on without it."""
        self.drop()
        if not self.executing:
            with suppress(FleetError):
                self.try_once(Look.anywhere())

    # Connecting

    def drop(self) -> None:
        """Forget the connection: the machine is about to move."""
        super().drop()
        self._has_the_word = None
        self.get_file_transfer_connection.cache.clear()

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known here, to what this run has any business with."""
        if self.here:
            return self.place is not None
        return self._stands and self.place is not None and self.place.epoch in self.epochs

    @property
    def _stands(self) -> bool:
        transport = self.client.get_transport() if self.client else None
        return transport is not None and transport.is_active()

    def _report(self, *, present: bool) -> None:
        try:
            if self.context.roll_call:
                self.context.roll_call.report(self.fleet_host.id, present=present)
        except FAILURES as error:  # what it was to begin is begun where it is needed
            self.host.log(str(worded(error, "beginning what all hosts need")))

    @override
    def try_once(self, how: Look) -> Place | None:
        return self._be_here() if self.here else super().try_once(how)

    @property
    def must_vouch(self) -> bool:
        return bool(self.installs or self.host.data.get("may_install"))

    @property
    def seen_at(self) -> str | None:
        """Of a run that looks again, and asks as little as it can."""
        if self.context.hypervisor.may_ask and not self.host.data.get("only_looks"):
            return None
        return SeenBefore(self.context.run.state_directory).address_of(self.fleet_host.id)

    def listens(self) -> None:
        self._report(present=True)

    def given(self, name: str) -> Any:
        return self.host.data.get(name)

    def tell(self, text: str) -> None:
        self.host.log(text)

    def beside(self, host: Host) -> Self:
        other: PyinfraHost = next(each for each in self.state.inventory if each.data.host_id == host.id)
        return type(self)(self.state, other)

    def _be_here(self) -> Place:
        """Refused when we run on another machine than the one that is meant."""
        host, user = self.fleet_host, getpass.getuser()
        pinned = self.context.keys.pinned(host.id)
        proving.require_is_this(host, pinned, self.context.fleet.file)
        self.data["ssh_user"] = user
        self.place = Place("this machine", Epoch.FINAL, pinned or "", user)
        return self.place
