"""Where a machine of the fleet is, and a connection to it: pinned, and proven to lead to the machine that is meant.

known_hosts is one fresh file per place and key (pyinfra remembers such files by name), so a key of one epoch
is never accepted in another.

Whoever answers for a guest proves first, at each connection, that it is that guest (`nixherd.pyinfra_glue.proving`).
A host that is asked for its neighbours gets a connection of its own, which only reads.
"""

import getpass
import hashlib
import secrets
import shlex
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from paramiko import Transport
from pyinfra.api.host import Host as PyinfraHost
from pyinfra.api.state import StateStage
from pyinfra.connectors.local import LocalConnector

from nixherd.base.becoming_root import Become
from nixherd.base.errors import FAILURES, FleetError, Misused, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.ssh_keys import known_hosts_line
from nixherd.base.terminal import worded
from nixherd.fleet.models import Access, Host
from nixherd.locate import neighbours, reach
from nixherd.locate.installed import Search
from nixherd.locate.neighbours import Neighbour
from nixherd.locate.reach import Epoch, Hints, Look, NotInstalled, Place
from nixherd.overview.last_seen import SeenBefore
from nixherd.pyinfra_glue import proving
from nixherd.pyinfra_glue.connector import NotFound, PinnedConnector, Stranger, Unwelcome, destination_of
from nixherd.pyinfra_glue.proving import output_of
from nixherd.pyinfra_glue.ssh_client import PinnedClient, WatchedTransport
from nixherd.ssh.destination import Destination
from nixherd.ssh.ssh_config import Configuration, config_options
from nixherd.trust.hops import Hops, jump_of, names_of, with_key

CONNECT_TIMEOUT = 5.0  # seconds for TCP, and for each part of the handshake
MOST = 8 << 20  # bytes of an answer that are read


class MachineConnector(PinnedConnector):
    """Finds its host and connects to it; `place` is where it is connected now."""

    place: Place | None = None
    is_asked: bool = False
    """whether this is a connection beside the run's own, on which the host is asked for its neighbours"""
    _installs: bool = False
    _answered_at: str | None = None
    """where it answered last, as the installed system"""
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
    def become(self) -> Become:
        """How a plain user is root of what answers; what runs before the installed system has sudo."""
        is_installed = self.place is None or self.place.epoch is Epoch.FINAL
        return self.fleet_host.become if is_installed else Become.SUDO

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
                self._try_once(Look.anywhere())

    # Connecting

    def drop(self) -> None:
        """Forget the connection: the machine is about to move."""
        self.leave()
        self.place = None
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

    def _say_once(self, what: str) -> None:
        """Say what would be the same of many hosts, of the first of them."""
        if self.context.run.first_to_say(what, self.fleet_host.id) == self.fleet_host.id:
            self.host.log(what)

    def _not_installed(self, place: Place, epoch: Epoch) -> NotInstalled:
        return NotInstalled(place.identity.label if place.identity else self.fleet_host.id, epoch, "what answers is")

    def _try_once(self, how: Look) -> Place | None:
        """Look the machine up and connect, once. None while it is on its way; OSError when it did not answer."""
        if self.here:
            return self._be_here()
        context, host, hints = self.context, self.fleet_host, self.hints
        host.require_read()
        # else the pinned key is all that the machine has to prove in this run, wherever it is found
        must_vouch = self.installs or self.host.data.get("may_install")
        search = None if must_vouch else self._search(hints, how)
        places = search.places() if search else reach.look(context.hypervisor, context.keys, host, hints, how)
        errors: list[OSError] = []
        for place in places:
            try:
                found = self._open(place)
            except OSError as failed:
                errors.append(failed)
                if search and isinstance(failed, Unwelcome):
                    search.is_found = True  # it has shown its key: nobody else can say more of where it is
                continue
            if found.epoch in how.epochs:
                if search and search.problem:
                    self._say_once(f"it was found without the hypervisor, which cannot be asked: {search.problem}")
                self._answered_at = place.address if found.epoch is Epoch.FINAL else None
                return found
            self.drop()
            if found.epoch not in how.accepted:
                raise self._not_installed(place, found.epoch)
            how.progress(f"the {found.epoch} still answers")
        if search and (errors or search.problem):
            raise NotFound(errors, search)
        if search and search.reasons:
            how.progress("; ".join(search.reasons))
        if errors:
            message = "; ".join(dict.fromkeys(map(str, errors)))
            stranger = next((each for each in errors if isinstance(each, Stranger)), None)
            if stranger:
                raise Stranger(message, stranger.address, stranger.shown)
            raise (Unwelcome if any(isinstance(each, Unwelcome) for each in errors) else OSError)(message)
        return None

    def _search(self, hints: Hints, how: Look) -> Search | None:
        context = self.context
        return Search.of(
            *(context.keys, self.fleet_host, hints, how),
            hypervisor=context.hypervisor,
            sightings=context.sightings,
            run=context.run,
            tell=self.host.log,
            ask=None if self.is_asked else self.told_by,
            before=self._answered_at or self._seen_at,
        )

    @property
    def _seen_at(self) -> str | None:
        """Where it answered when it was looked at last: for a run that looks again, and asks as little as it can."""
        if self.context.hypervisor.may_ask and not self.host.data.get("only_looks"):
            return None
        return SeenBefore(self.context.run.state_directory).address_of(self.fleet_host.id)

    def _be_here(self) -> Place:
        """Refused when we run on another machine than the one that is meant."""
        host, user = self.fleet_host, getpass.getuser()
        pinned = self.context.keys.pinned(host.id)
        proving.require_is_this(host, pinned, self.context.fleet.file)
        self.data["ssh_user"] = user
        self.place = Place("this machine", Epoch.FINAL, pinned or "", user)
        return self.place

    def _open(self, place: Place) -> Place:
        """Connect to one place. OSError when it cannot be, also because it shows another host key or refuses ours."""
        self.drop()
        self.data["ssh_hostname"] = place.address
        user = self.host.data.get("ssh_user") or self.access.user or place.user
        self.data["ssh_user"] = user if place.epoch is Epoch.FINAL else place.user
        to = self._destination(place)
        if self.is_asked and (whose := self.context.hypervisor.part_at(to.address)):
            raise OSError(f"{place.address} is {whose}: a hypervisor is never logged in to")

        def watched(*args: Any, **arguments: Any) -> Transport:
            if not self.is_asked:
                self._report(present=True)  # something listens; handshakes take a while
            return WatchedTransport(*args, **arguments)

        who = f"{self.fleet_host.id} ({place.epoch}) at {place.address}"
        # where its key is pinned there may be nothing else to ask, or nothing that it answers
        is_known = place.epoch is Epoch.FINAL and (place.identity is None or self.access is not Access.SHELL)
        with self.opened(to, who, place.address, watched, CONNECT_TIMEOUT) as client:
            if not is_known:
                place = proving.proven(self.context.hypervisor, client, self.fleet_host, place)
        self.take(client)
        self.place = place
        return place

    def once(self) -> PinnedClient:
        """The connection to the installed system, tried for once. FleetError or OSError when it does not answer."""
        reasons: list[str] = []
        if not self._try_once(Look(progress=reasons.append)) or self.client is None:
            raise OSError("; ".join(reasons) or "it is on its way")
        assert isinstance(self.client, PinnedClient)
        return self.client

    def told_by(self, host: Host) -> tuple[Neighbour, ...]:
        """Ask another host for its neighbours; what one told is not asked again for a few seconds."""
        with self.context.sightings.told[host.id] as told:
            if told.is_empty:
                other: PyinfraHost = next(each for each in self.state.inventory if each.data.host_id == host.id)
                told.value = _ask(type(self)(self.state, other))
            return told.value

    # The way there

    def _find_hop(self, host: Host) -> str | None:
        """Where a guest answers that others are reached through; None for any other. OSError when it does not.

        What was found is not looked for again for a few seconds.
        """
        if self.context.fleet.vm_of(host.id) is None:
            return None
        with self.context.sightings.hops[host.id] as found:
            if found.is_empty:
                other: PyinfraHost = next(each for each in self.state.inventory if each.data.host_id == host.id)
                connector = type(self)(self.state, other)
                connector.is_asked = True
                try:
                    connector.once()
                    assert connector.place is not None
                    found.value = connector.place.address
                except OSError as error:
                    raise OSError(f"no way through {host.id}: {error}") from error
                finally:
                    connector.drop()
            return found.value

    def _destination(self, place: Place) -> Destination:
        """How a place is connected to. Misused when the operator's ssh_config says what cannot be followed."""
        host, given = self.fleet_host, self.data["ssh_port"]
        options = tuple(config_options(self.data["ssh_config_file"]))
        hops = Hops(self.context.fleet, self.context.keys, self._keep, self._find_hop)
        config = Configuration(options, self.context.ssh_config, hops.pin, hops.hop)
        names = names_of(host, place.address)
        try:
            installed = place.epoch is Epoch.FINAL
            port = int(given) if given else host.port if installed else None
            jump = jump_of(host, self.host.data.get("ssh_jump"))
            way = config.way_to(
                *(names, self.data["ssh_user"], port), address=place.address, installed=installed, jump=jump
            )
            line = known_hosts_line([way.address], place.host_key, port=way.port)  # this place's key and nothing else
            known_hosts = self._keep(f"{place.epoch}", line)
        except Usage as error:
            raise Misused(str(error)) from error
        except ValueError as error:  # known_hosts has no way to write it
            raise Misused(f"{host.id}: {error}; correct it in {self.context.fleet.file}") from error
        if jump is not None and self.data["ssh_key"]:
            way = replace(way, route=with_key(way.route, expanded(self.data["ssh_key"])))
        to = destination_of(
            *(way, self.data["ssh_user"], known_hosts, self.data["ssh_key"]),
            looks_for_keys=self.data["ssh_look_for_keys"],
            uses_agent=self.data["ssh_allow_agent"],
        )
        return self.configured(to) if to.route.jumps else to

    def configured(self, to: Destination) -> Destination:
        """The same, written down for programs that are told of it by other programs."""
        return replace(to, config=self._keep("config", to.text))

    def _keep(self, kind: str, text: str) -> Path:
        """A file of this run for this host; its name goes by what is in it."""
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        path = self.context.run.known_hosts_of(self.fleet_host.id) / name
        if not path.exists():
            write_whole(path, text + "\n")
        return path


def _ask(connector: MachineConnector) -> tuple[Neighbour, ...]:
    """FleetError when it does not say."""
    host = connector.fleet_host
    if host.access is not Access.SHELL:
        raise FleetError(f"it takes forced commands alone ({host.access})")
    if connector.context.keys.pinned(host.id) is None:
        raise FleetError(f"no host key is pinned for it in {connector.context.fleet.file}")
    connector.is_asked = True
    token = secrets.token_hex(8)
    try:
        client = connector.once()
        script = _with_rights(host, neighbours.look(token), connector.data["ssh_user"])
        told = neighbours.parse(output_of(client, script, most=MOST), token)
    except OSError as error:
        raise FleetError(str(error)) from error
    finally:
        connector.drop()
    if told is None:
        raise FleetError("it did not come to the end of what it was to tell")
    return told


def _with_rights(host: Host, script: str, user: str | None) -> str:
    """Some leases are root's to read."""
    if user == "root" or not (host.sudo_passwordless or host.become is Become.DOAS):
        return script
    whole = f"sh -c {shlex.quote(script)}"
    return f"{host.become.without_question} {whole} 2>/dev/null || {whole}"
