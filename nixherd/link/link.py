"""Where a machine of the fleet is, and a connection to it: pinned, and proven to lead to the machine that is meant.

known_hosts is one fresh file per place and key (pyinfra remembers such files by name), so a key of one epoch
is never accepted in another.

Whoever answers for a guest proves first, at each connection, that it is that guest (`nixherd.link.proving`).
A host that is asked for its neighbours gets a connection of its own, which only reads.
"""

import hashlib
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from paramiko import Transport

from nixherd.base.becoming_root import Become
from nixherd.base.errors import FleetError, Misused, Refused, Unforeseen, Unusable, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.run import Run
from nixherd.base.ssh_keys import known_hosts_line
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Access, Fleet, Host
from nixherd.link import proving
from nixherd.link.client import PinnedClient, WatchedTransport
from nixherd.link.failures import NotFound, Stranger, Unwelcome
from nixherd.link.opening import Connected, destination_of
from nixherd.link.proving import output_of
from nixherd.locate import neighbours, reach
from nixherd.locate.installed import Search
from nixherd.locate.neighbours import Neighbour, Sightings
from nixherd.locate.reach import Absent, Epoch, Hints, Look, NotInstalled, Place
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.ssh.destination import Destination
from nixherd.ssh.ssh_config import Answers, Configuration, config_options
from nixherd.trust.hops import Hops, jump_of, names_of, with_key

CONNECT_TIMEOUT = 5.0  # seconds for TCP, and for each part of the handshake
MOST = 8 << 20  # bytes of an answer that are read


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What all machines of a run share, of which a link needs something."""

    fleet: Fleet
    run: Run
    keys: HostKeys
    hypervisor: Hypervisor
    sightings: Sightings = field(default_factory=Sightings, kw_only=True)
    ssh_config: Answers = field(default_factory=Answers, kw_only=True)


class Link(Connected, ABC):
    """Finds its host and connects to it; `place` is where it is connected now, by `client`.

    `data` are the ssh_ data of a host by the names that pyinfra and the operator give them, `ssh_hostname` and
    `ssh_user` those of the connection that stands.
    """

    place: Place | None = None
    is_asked: bool = False
    """whether this is a connection beside the run's own, on which the host is asked for its neighbours"""
    data: MutableMapping[str, Any]
    _answered_at: str | None = None
    """where it answered last, as the installed system"""

    # What whoever drives it says

    @property
    @abstractmethod
    def context(self) -> Surroundings: ...

    @property
    @abstractmethod
    def fleet_host(self) -> Host: ...

    @property
    @abstractmethod
    def hints(self) -> Hints:
        """What the operator says of this machine."""

    @abstractmethod
    def given(self, name: str) -> Any:
        """What is said of this host under a name of pyinfra's data; None where nothing is."""

    @abstractmethod
    def tell(self, text: str) -> None:
        """Narrate what happens on the way to this machine."""

    @abstractmethod
    def beside(self, host: Host) -> Self:
        """A new link to another host, which is asked for something on the way to this one."""

    @abstractmethod
    def opened(
        self, to: Destination, who: str, at: str, transport: Any, timeout: float
    ) -> AbstractContextManager[PinnedClient]:
        """As `nixherd.link.opening.opened`."""

    @property
    def access(self) -> Access:
        """How far the machine lets us in."""
        return self.fleet_host.access

    @property
    def become(self) -> Become:
        """How a plain user is root of what answers; what runs before the installed system has sudo."""
        is_installed = self.place is None or self.place.epoch is Epoch.FINAL
        return self.fleet_host.become if is_installed else Become.SUDO

    @property
    def must_vouch(self) -> bool:
        """Whether a guest's agent has to vouch for it: else the pinned key is all that it has to prove in this run."""
        return False

    @property
    def seen_at(self) -> str | None:
        """Where it answered before this run, where that is to be tried first."""
        return None

    def listens(self) -> None:
        """Something listens where the machine is; handshakes take a while."""

    # Connecting

    def drop(self) -> None:
        """Forget the connection: the machine is about to move."""
        self.leave()
        self.place = None

    def once(self) -> PinnedClient:
        """The connection to the installed system, tried for once. FleetError or OSError when it does not answer."""
        reasons: list[str] = []
        if not self.try_once(Look(progress=reasons.append)) or self.client is None:
            raise OSError("; ".join(reasons) or "it is on its way")
        return self.client

    def answering(self) -> Place:
        """Connect to the installed system, tried for once. FleetError or OSError when it does not answer."""
        reasons: list[str] = []
        place = self.try_once(Look(progress=reasons.append))
        if place is None:
            why = f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
            file, is_pinned = self.context.fleet.file, self.context.keys.pinned(self.fleet_host.id) is not None
            proof = f"; without its agent's word only a publicKey in {file} can prove that a machine is it"
            raise Absent(f"{self.fleet_host.id} is still on its way{why}", f"try again{'' if is_pinned else proof}")
        return place

    def why_never(self, error: FleetError | OSError, *, installs: bool) -> FleetError | OSError | None:
        """Why the machine that could not be reached will not be there later in this run either."""
        if isinstance(error, NotFound) and isinstance(error.problem, (Unusable, Refused)):
            return Refused(str(error)) if isinstance(error.problem, Refused) else error
        context, host = self.context, self.fleet_host
        if isinstance(error, (Unusable, Refused, Unforeseen)) or context.fleet.vm_of(host.id) is None:
            return error
        try:
            stranger = reach.stranger(context.hypervisor, context.keys, host, installs=installs)
        except FleetError:
            return None
        return Refused(stranger) if stranger else None

    def try_once(self, how: Look) -> Place | None:
        """Look the machine up and connect, once. None while it is on its way; OSError when it did not answer."""
        context, host, hints = self.context, self.fleet_host, self.hints
        host.require_read()
        search = None if self.must_vouch else self._search(hints, how)
        places = search.places() if search else reach.look(context.hypervisor, context.keys, host, hints, how)
        errors: list[OSError] = []
        for place in places:
            try:
                found = self.open(place)
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
                raise self.not_installed(place, found.epoch)
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

    def not_installed(self, place: Place, epoch: Epoch) -> NotInstalled:
        return NotInstalled(place.identity.label if place.identity else self.fleet_host.id, epoch, "what answers is")

    def _search(self, hints: Hints, how: Look) -> Search | None:
        context = self.context
        return Search.of(
            *(context.keys, self.fleet_host, hints, how),
            hypervisor=context.hypervisor,
            sightings=context.sightings,
            run=context.run,
            tell=self.tell,
            ask=None if self.is_asked else self.told_by,
            before=self._answered_at or self.seen_at,
        )

    def _say_once(self, what: str) -> None:
        """Say what would be the same of many hosts, of the first of them."""
        if self.context.run.first_to_say(what, self.fleet_host.id) == self.fleet_host.id:
            self.tell(what)

    def open(self, place: Place) -> Place:
        """Connect to one place. OSError when it cannot be, also because it shows another host key or refuses ours."""
        self.drop()
        self.data["ssh_hostname"] = place.address
        user = self.given("ssh_user") or self.access.user or place.user
        self.data["ssh_user"] = user if place.epoch is Epoch.FINAL else place.user
        to = self.way_to(place)
        if self.is_asked and (whose := self.context.hypervisor.part_at(to.address)):
            raise OSError(f"{place.address} is {whose}: a hypervisor is never logged in to")

        def watched(*args: Any, **arguments: Any) -> Transport:
            if not self.is_asked:
                self.listens()
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

    # The way there

    def told_by(self, host: Host) -> tuple[Neighbour, ...]:
        """Ask another host for its neighbours; what one told is not asked again for a few seconds."""
        with self.context.sightings.told[host.id] as told:
            if told.is_empty:
                told.value = _ask(self.beside(host))
            return told.value

    def _find_hop(self, host: Host) -> str | None:
        """Where a guest answers that others are reached through; None for any other. OSError when it does not.

        What was found is not looked for again for a few seconds.
        """
        if self.context.fleet.vm_of(host.id) is None:
            return None
        with self.context.sightings.hops[host.id] as found:
            if found.is_empty:
                link = self.beside(host)
                link.is_asked = True
                try:
                    link.once()
                    assert link.place is not None
                    found.value = link.place.address
                except OSError as error:
                    raise OSError(f"no way through {host.id}: {error}") from error
                finally:
                    link.drop()
            return found.value

    def way_to(self, place: Place) -> Destination:
        """How a place is connected to. Misused when the operator's ssh_config says what cannot be followed."""
        host, given = self.fleet_host, self.data["ssh_port"]
        options = tuple(config_options(self.data["ssh_config_file"]))
        hops = Hops(self.context.fleet, self.context.keys, self._keep, self._find_hop)
        config = Configuration(options, self.context.ssh_config, hops.pin, hops.hop)
        names = names_of(host, place.address)
        try:
            installed = place.epoch is Epoch.FINAL
            port = int(given) if given else host.port if installed else None
            jump = jump_of(host, self.given("ssh_jump"))
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


def _ask(link: Link) -> tuple[Neighbour, ...]:
    """FleetError when it does not say."""
    host = link.fleet_host
    if host.access is not Access.SHELL:
        raise FleetError(f"it takes forced commands alone ({host.access})")
    if link.context.keys.pinned(host.id) is None:
        raise FleetError(f"no host key is pinned for it in {link.context.fleet.file}")
    link.is_asked = True
    token = secrets.token_hex(8)
    try:
        client = link.once()
        script = _with_rights(host, neighbours.look(token), link.data["ssh_user"])
        told = neighbours.parse(output_of(client, script, most=MOST), token)
    except OSError as error:
        raise FleetError(str(error)) from error
    finally:
        link.drop()
    if told is None:
        raise FleetError("it did not come to the end of what it was to tell")
    return told


def _with_rights(host: Host, script: str, user: str | None) -> str:
    """Some leases are root's to read."""
    if user == "root" or not (host.sudo_passwordless or host.become is Become.DOAS):
        return script
    whole = f"sh -c {shlex.quote(script)}"
    return f"{host.become.without_question} {whole} 2>/dev/null || {whole}"
