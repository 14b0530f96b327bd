"""`@fleet/ID`: pyinfra's SSH connector for a machine that may not exist yet, and moves while we work on it.

pyinfra connects, prepares, then executes; a VM that is created during a run would be unreachable in it. So:

- `connect()` without a machine returns quietly; with one it pins the host key and connects;
- a command before Execute on an absent machine succeeds without output, so facts take their defaults;
- a command during Execute looks the machine up again when the connection is gone, and raises OSError, which
  fails this host only, when there is none within the deadline.

known_hosts is one fresh file per place and key (pyinfra remembers such files by name), so a key of one epoch
is never accepted in another.

Whoever answers for a guest proves first, at each connection, that it is that guest
(`nixherd.pyinfra_glue.proving`). And what answers is of use only as the installed system, but in runs that install
one: their operations say so.

With `local` among the host's data it is the machine that we run on, and its shell takes the place of SSH.
"""

import getpass
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, MutableSet
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from paramiko import AuthenticationException, BadHostKeyException, SSHException, Transport
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.util import CommandOutput, OutputLine
from typing_extensions import override

from nixherd.deploy.report import Outcome
from nixherd.errors import FAILURES, UNFORESEEN, DeadlineExceeded, FleetError, Refused, Unforeseen, Usage
from nixherd.faults import worded
from nixherd.files import expanded, write_whole
from nixherd.fleet.models import Access, Host
from nixherd.locate import reach
from nixherd.locate.installed import Search
from nixherd.locate.reach import Absent, Epoch, Hints, NotInstalled, Place
from nixherd.narration import Narrator
from nixherd.proxmox.errors import Misused, Unusable
from nixherd.pyinfra_glue import api_facts, here, proving
from nixherd.pyinfra_glue.api_facts import ApiQuery
from nixherd.pyinfra_glue.asking import asker
from nixherd.pyinfra_glue.base import PinnedConnector, another_key, unwelcome
from nixherd.pyinfra_glue.failures import NoShell, NotFound, Stranger, Unwelcome, is_one, pauses
from nixherd.pyinfra_glue.ssh_client import Keys, PinnedClient
from nixherd.pyinfra_glue.transport import NotBegun, WatchedTransport, notice_a_dead_peer
from nixherd.sizes import parse_seconds
from nixherd.ssh.destination import Destination
from nixherd.ssh.keys import known_hosts_line
from nixherd.ssh.login_shell import Answer, answered
from nixherd.ssh.ssh_config import Configuration, config_options

CONNECT_TIMEOUT = 5.0  # seconds for TCP, and for each part of the handshake
# sshd shuts out addresses that connect and leave again and again (PerSourcePenalties: a second for each time)
STRANGER_PAUSE = 1.0
DEFAULT_DEADLINE = 300.0  # seconds for a machine to come up


class FleetConnector(PinnedConnector):
    """One per host; `place` is where it is connected now."""

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
    def deadline(self) -> float:
        """Seconds. Misused when boot_deadline is no number of them."""
        given = self.host.data.get("boot_deadline")
        try:
            return DEFAULT_DEADLINE if given is None else parse_seconds(given)
        except ValueError as error:
            raise Misused(f"--data boot_deadline={error}") from None

    @property
    def hints(self) -> Hints:
        """What the operator said of this machine. Misused when it was said of several at once."""
        if self.is_asked:
            return Hints()
        said = {"ssh_hostname", "host_key"} & self.state.inventory.get_override_data().keys()
        if said:
            self._require_one(min(said))
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
        return not self.here and reach.is_proven_by_agent(vm) and not (place.asked and place.asked.has_agent)

    def _look_anew(self) -> None:
        """Find the guest through the hypervisor, now that it is to be installed; who plans only goes on without it."""
        self.drop()
        if not self.executing:
            with suppress(FleetError):
                self._try_once(patience=0, epochs=tuple(Epoch), accepted=tuple(Epoch))

    @property
    def _by_names(self) -> bool:
        """Whether the pinned key is all that the machine has to prove in this run, wherever it is found."""
        return not (self.installs or self.host.data.get("may_install"))

    # Connecting

    @override
    def connect(self) -> None:
        if self.host.data.get("api_only"):
            return  # nothing in this run asks the machine itself
        must_answer = self.host.data.get("must_answer", False)
        connected, reasons = False, list[str]()
        try:
            self.deadline  # noqa: B018  a wrong one is said before anything is changed
            # whether this run installs is not known yet; one that only asks, or deploys, does not
            epochs = (Epoch.FINAL,) if must_answer else tuple(Epoch)
            connected = self._try_once(patience=0, epochs=epochs, accepted=epochs, progress=reasons.append)
            if must_answer and not connected:
                why = f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
                proof = self.context.keys.pinned(self.fleet_host.id) is not None
                without = "; without its agent's word only a publicKey in hosts.nix can prove that a machine is it"
                raise Absent(f"{self.fleet_host.id} is still on its way{why}", f"try again{'' if proof else without}")
        except FAILURES as failure:
            error = failure if isinstance(failure, OSError) else worded(failure, f"{self.fleet_host.id}: connecting")
            self._forget_known_hosts()
            reason = self._why_never(error) or (error if must_answer else None)
            if reason:
                self.context.run.failed(self.fleet_host.id, reason, outcome=Outcome.UNREACHABLE)
                said = str(reason)
                raise ConnectError(self._said_once(said) if isinstance(error, Unusable) else said) from error
            self.host.log(f"absent: {error.what}" if isinstance(error, Absent) else f"not reached yet: {error}")
        finally:
            self._report(present=connected)

    def _report(self, *, present: bool) -> None:
        try:
            if self.context.roll_call:
                self.context.roll_call.report(self.fleet_host.id, present=present)
        except FAILURES as error:  # what it was to begin is begun where it is needed
            self.host.log(str(worded(error, "beginning what all hosts need")))

    def _said_once(self, reason: str) -> str:
        """What stops many hosts, in full for the first of them."""
        first = self.context.run.first_to_say(reason, self.fleet_host.id)
        return reason if first == self.fleet_host.id else f"not connected, for the same reason as {first}"

    def _say_once(self, what: str) -> None:
        """Say what would be the same of many hosts, of the first of them."""
        if self.context.run.first_to_say(what, self.fleet_host.id) == self.fleet_host.id:
            self.host.log(what)

    def _why_never(self, error: FleetError | OSError) -> FleetError | OSError | None:
        """Why the machine that could not be reached will not be there later in this run either."""
        if isinstance(error, NotFound) and isinstance(error.problem, (Unusable, Refused)):
            return Refused(str(error)) if isinstance(error.problem, Refused) else error
        if isinstance(error, (Unusable, Refused, Unforeseen)) or self.context.fleet.vm_of(self.fleet_host.id) is None:
            return error
        try:
            installs = not self.host.data.get("must_answer", False)
            stranger = reach.stranger(self.context.hypervisor, self.context.keys, self.fleet_host, installs=installs)
        except FleetError:
            return None
        return Refused(stranger) if stranger else None

    def reach(self, deadline: float | None = None, *, epochs: Collection[Epoch] = (), absent_ok: bool = False) -> Place:
        """The place of this machine, connected, in one of `epochs` (else of this run's), within `deadline` seconds.

        `absent_ok` goes on waiting for a machine that is switched off for now, as during a reboot. Raises
        FleetError (Absent, DeadlineExceeded, …) when there is nothing to connect to.
        """
        epochs = epochs or self.epochs
        if self.connected and self.place and self.place.epoch in epochs:
            return self.place
        self._require_of_use()
        limit = self.deadline if deadline is None else deadline
        until = time.monotonic() + limit
        what = f"{self.fleet_host.id}: waiting for {' or '.join(epochs)}"
        said, done, between = Narrator(self.host.log), set[str](), pauses()
        refused = ""  # what answered last, if it did not let us in: the reason, whatever else was looked at since

        def attempt() -> bool:
            nonlocal refused
            try:
                patience = max(1.0, until - time.monotonic())
                return self._try_once(patience=patience, epochs=epochs, accepted=self.epochs, progress=said, done=done)
            except Absent as error:
                if not absent_ok:
                    raise
                said(error.what)
                refused = ""
            except OSError as error:
                said(str(error))
                refused = str(error) if is_one(error, Unwelcome) else ""
                if is_one(error, Stranger):
                    time.sleep(STRANGER_PAUSE)
                elif is_one(error, Unwelcome):
                    time.sleep(max(0.0, min(next(between), until - time.monotonic())))
            return False

        try:
            reach.until(limit, what, attempt)
        except DeadlineExceeded as error:
            raise type(error)(f"{error}; last: {refused or said.last or 'no answer'}") from None
        assert self.place is not None
        return self.place

    def drop(self) -> None:
        """Forget the connection: the machine is about to move."""
        if self.client is not None:
            self.client.close()
        self.client = None
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

    def _require_of_use(self) -> None:
        """Refused where something answers that this run has no business with."""
        if self._stands and self.place and self.place.epoch not in self.epochs:
            raise self._not_installed(self.place, self.place.epoch)

    def _not_installed(self, place: Place, epoch: Epoch) -> NotInstalled:
        return NotInstalled(place.asked.label if place.asked else self.fleet_host.id, epoch, "what answers is")

    def _try_once(
        self,
        *,
        patience: float,
        epochs: Collection[Epoch],
        accepted: Collection[Epoch],
        progress: Callable[[str], None] = lambda said: None,
        done: MutableSet[str] | None = None,
    ) -> bool:
        """Look the machine up and connect, once. False while it is on its way; OSError when it did not answer."""
        if self.here:
            return self._be_here()
        context, host, hints = self.context, self.fleet_host, self.hints
        search = None
        if self._by_names and Search.is_for(context.keys, host, hints):
            search = Search(
                *(context.hypervisor, context.keys, context.sightings, context.run, host, hints, self.host.log),
                ask=None if self.is_asked else asker(self),
            )
            search.epochs, search.accepted, search.patience = epochs, accepted, patience
            search.before, search.done = self._answered_at, done
        places = (
            search.places()
            if search
            else reach.look(
                context.hypervisor,
                context.keys,
                host,
                hints,
                epochs=epochs,
                patience=patience,
                progress=progress,
                accepted=accepted,
                done=done,
            )
        )
        errors: list[OSError] = []
        for place in places:
            try:
                self._open(place)
            except OSError as failed:
                errors.append(failed)
                if search and isinstance(failed, Unwelcome):
                    search.is_found = True  # it has shown its key: nobody else can say more of where it is
                continue
            assert self.place is not None
            if self.place.epoch in epochs:
                if search and search.problem:
                    self._say_once(f"it was found without the hypervisor, which cannot be asked: {search.problem}")
                self._answered_at = place.address if self.place.epoch is Epoch.FINAL else None
                return True
            epoch = self.place.epoch
            self.drop()
            if epoch not in accepted:
                raise self._not_installed(place, epoch)
            progress(f"the {epoch} still answers")
        if search and (errors or search.problem):
            raise NotFound(errors, search)
        if search and search.reasons:
            progress("; ".join(search.reasons))
        if errors:
            known = (kind for kind in (Stranger, Unwelcome) if any(isinstance(error, kind) for error in errors))
            raise next(known, OSError)("; ".join(dict.fromkeys(map(str, errors))))
        return False

    def _be_here(self) -> bool:
        """Refused when we run on another machine than the one that is meant."""
        host, user = self.fleet_host, getpass.getuser()
        pinned = self.context.keys.pinned(host.id)
        here.require_is_this(host, pinned)
        self.data["ssh_user"] = user
        self.place = Place("this machine", Epoch.FINAL, pinned or "", user)
        return True

    def _open(self, place: Place) -> None:
        """Connect to one place. OSError when it cannot be, also because it shows another host key or refuses ours."""
        self.drop()
        self.data["ssh_hostname"] = place.address
        own = self.host.data.get("ssh_user") or self.access.user or place.user
        self.data["ssh_user"] = own if place.epoch is Epoch.FINAL else place.user
        to = self._destination(place)
        if self.is_asked and (whose := self.context.hypervisor.part_at(to.address)):
            raise OSError(f"{place.address} is {whose}: a hypervisor is never logged in to")

        def opened(*args: Any, **arguments: Any) -> Transport:
            if not self.is_asked:
                self._report(present=True)  # something listens; handshakes take a while
            return WatchedTransport(*args, **arguments)

        client = self.pinned_client()
        try:
            client.open(to, self._keys(to), opened, CONNECT_TIMEOUT)
            place = self._proven(client, place)
        except BadHostKeyException as error:
            client.close()
            who = f"{self.fleet_host.id} ({place.epoch}) at {place.address}"
            raise Stranger(another_key(who, error)) from error
        except AuthenticationException as error:
            client.close()
            raise Unwelcome(unwelcome(self.data["ssh_user"], place.address)) from error
        except (FleetError, NoShell):
            client.close()
            raise
        except (SSHException, EOFError, OSError) as error:
            why = client.why(error)
            client.close()
            raise OSError(f"no SSH at {place.address}{to.way}: {why}") from error
        transport = client.get_transport()
        assert transport is not None
        notice_a_dead_peer(transport)
        self.client, self.place = client, place

    def _proven(self, client: PinnedClient, place: Place) -> Place:
        """The place as the machine says that it is. Refused when it is not the guest that named it."""
        asked = place.asked
        if place.epoch is Epoch.FINAL and (asked is None or self.access is not Access.SHELL):
            return place  # its key is pinned, and there is nothing else to ask, or nothing that it answers
        if asked is None:
            shown = proving.look_at(client)
        else:
            shown = proving.prove(self.context.hypervisor, client, asked, place.address)
        # nobody but the machine itself can say whether it has jumped into the installer already
        epoch = reach.epoch_on(self.fleet_host, shown.os_release)
        if asked is not None and (epoch is Epoch.FINAL) != (place.epoch is Epoch.FINAL):
            expected = "installed system" if place.epoch is Epoch.FINAL else place.epoch
            raise Refused(
                f"{asked.label}: with the key of its {expected}, the {epoch} answers at {place.address}; nothing was "
                "done there: find out who is root in that guest"
            )
        return replace(place, epoch=epoch)

    def once(self) -> PinnedClient:
        """The connection to the installed system, tried for once. FleetError or OSError when it does not answer."""
        installed = (Epoch.FINAL,)
        said: list[str] = []
        found = self._try_once(patience=0, epochs=installed, accepted=installed, progress=said.append)
        if not found or self.client is None:
            raise OSError("; ".join(said) or "it is on its way")
        assert isinstance(self.client, PinnedClient)
        return self.client

    def prove_for_wiping(self) -> None:
        """Refused unless root of the guest that is to be wiped is root of the machine where we are connected.

        It writes a file there: only when executing. Nothing where the machine is no guest with an agent.
        """
        place, client = self.reach(), self.client
        if self._lacks_proof(place):
            raise Refused(
                f"{self.fleet_host.id} at {place.address} was found by its name and its key, which is no proof for "
                "wiping it; nothing was done there: run this again"
            )
        if place.asked is None or not place.asked.has_agent or client is self._has_the_word:
            return
        if not isinstance(client, PinnedClient):
            return
        proving.prove_by_word(self.context.hypervisor, client, place.asked, place.address)
        self._has_the_word = client

    def told_key(self) -> str | None:
        """The host key that only the agent of an installed guest tells, once whoever shows it has proved to be that
        guest; None while no such guest runs. FleetError when it does not."""
        place = reach.told_place(self.context.hypervisor, self.context.keys, self.fleet_host)
        if place is None:
            return None
        try:
            self._open(place)
        except OSError as error:
            raise FleetError(
                f"{self.fleet_host.id}: the host key that its agent tells cannot be proven: {error}; "
                "or put its publicKey into hosts.nix yourself"
            ) from error
        finally:
            self.drop()
        return place.host_key

    def _known_hosts(self, place: Place, address: str, port: int) -> Path:
        """A known_hosts file that holds this place's key and nothing else."""
        return self._keep(f"{place.epoch}", known_hosts_line([address], place.host_key, port=port))

    def _keep(self, kind: str, text: str) -> Path:
        """A file of this run for this host; its name goes by what is in it."""
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        path = self.context.run.known_hosts_of(self.fleet_host.id) / name
        if not path.exists():
            write_whole(path, text + "\n")
        return path

    def _forget_known_hosts(self) -> None:
        with suppress(*FAILURES):  # this must not end what else ends now; the next run removes what is left
            shutil.rmtree(self.context.run.known_hosts_of(self.fleet_host.id), ignore_errors=True)

    # Working

    def destination(self) -> Destination:
        """How OpenSSH (Nix, tar) reaches the machine where we are connected."""
        return self.configured(self._destination(self.reach()))

    def configured(self, to: Destination) -> Destination:
        """The same, written down for programs that are told of it by other programs."""
        return replace(to, config=self._keep("config", to.text))

    def _destination(self, place: Place) -> Destination:
        """How a place is connected to. Misused when the operator's ssh_config says what cannot be followed."""
        host, given = self.fleet_host, self.data["ssh_port"]
        config = Configuration(
            tuple(config_options(self.data["ssh_config_file"])), self.context.ssh_config, self._pin_of
        )
        names = tuple(dict.fromkeys(name for name in (host.ssh_alias, host.id, place.address) if name))
        try:
            installed = place.epoch is Epoch.FINAL
            port = int(given) if given else None
            way = config.way_to(names, self.data["ssh_user"], port, address=place.address, installed=installed)
            known_hosts = self._known_hosts(place, way.address, way.port)
        except Usage as error:
            raise Misused(str(error)) from error
        except ValueError as error:  # known_hosts has no way to write it
            raise Misused(f"{host.id}: {error}; correct it in hosts.nix") from error
        key, offered = self.data["ssh_key"], way.identities
        to = Destination(
            address=way.address,
            user=self.data["ssh_user"],
            known_hosts=known_hosts,
            port=way.port,
            identity=expanded(key) if key else None,
            offered=offered.files if self.data["ssh_look_for_keys"] else (),
            certificates=offered.certificates,
            agent=offered.agent if self.data["ssh_allow_agent"] else "none",
            identities_only=offered.only,
            route=way.route,
        )
        return self.configured(to) if to.route.jumps else to

    def _pin_of(self, names: Collection[str]) -> tuple[str, Path] | None:
        """Under which name, in which file, the key of a hop is kept that is a host of the fleet."""
        for host in self.context.fleet.hosts.values():
            known = {host.id, host.ssh_alias, host.hostname, *reach.addresses(host)}
            if not known.isdisjoint(names) and (key := self.context.keys.pinned(host.id)):
                name = host.id.lower()  # OpenSSH looks for what it is told in lines that it has put into lower case
                return name, self._keep("hop", known_hosts_line([name], key))
        return None

    def _keys(self, to: Destination) -> Keys:
        try:
            given = self.make_paramiko_kwargs()  # which of pyinfra's data say it, and asks for a passphrase it needs
        except PyinfraError as error:  # which would end the run for all hosts
            raise OSError(str(error)) from error
        return Keys(to.user, to.identities, given.get("pkey"), given.get("password"))

    def _ready(self) -> bool:
        """Connected; False for a machine that is absent while we only plan. OSError past the deadline."""
        if self.connected:
            return True
        if not self.executing:
            return False
        try:
            self.reach()
        except Unforeseen:
            raise
        except FleetError as error:
            if isinstance(error, Refused):
                self.context.run.failed(self.fleet_host.id, error)
            raise OSError(str(error)) from error
        return True

    @override
    def run_shell_command(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """As `_run`; what nobody foresaw is an OSError too, which to pyinfra is this host's failure."""
        try:
            return self._run(command, *args, **arguments)
        except UNFORESEEN as error:
            raise worded(error, f"{self.fleet_host.id}: running a command") from error

    def _run(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """Run it; on a connection that turns out to be dead before it has begun, look the machine up and run it there.

        Raises OSError when the connection breaks later, or no machine is found. What the hypervisor is asked needs no
        machine.
        """
        if isinstance(command, ApiQuery):
            return self._ask(command)
        self._require_shell()
        for last in (False, True):
            if not self._ready():
                break
            if self.here:
                return self.here.run_shell_command(command, *args, **arguments)
            try:
                return super().run_shell_command(command, *args, **arguments)
            except NotBegun:
                self.drop()
                if last:
                    raise
            except (SSHException, EOFError) as error:
                raise OSError(f"{self.fleet_host.id}: the connection broke: {error or 'no answer'}") from error
        return True, CommandOutput([])

    def _ask(self, query: ApiQuery) -> tuple[bool, CommandOutput]:
        try:
            found = api_facts.answer(self.context.hypervisor, self.fleet_host.id, query)
        except FAILURES as failure:
            error = worded(failure, f"{self.fleet_host.id}: {query}")
            self.context.run.failed(self.fleet_host.id, error)
            return False, CommandOutput([OutputLine("stderr", line) for line in str(error).splitlines()])
        return True, CommandOutput([OutputLine("stdout", json.dumps(found))])

    @property
    def access(self) -> Access:
        """How far the machine lets us in."""
        return Access.SHELL if self.here else self.fleet_host.access

    def forced(self, words: str, timeout: float) -> tuple[bool, CommandOutput]:
        """Say these words to a machine that takes forced commands alone, as they are; OSError when it is not there."""
        if not self._ready() or not isinstance(self.client, PinnedClient):
            raise OSError(f"{self.fleet_host.id}: not connected")
        try:
            out, err, status = self.client.say(words, timeout)
        except (SSHException, EOFError) as error:
            raise OSError(f"{self.fleet_host.id}: the connection broke: {error or 'no answer'}") from error
        answer, noise = answered(out.splitlines())
        self.name_noise(Answer("", noise=noise))
        lines = [OutputLine("stdout", line) for line in answer]
        lines += [OutputLine("stderr", line) for line in err.splitlines()]
        return status == 0, CommandOutput(lines)

    def _require_shell(self) -> None:
        if self.access is not Access.SHELL:
            raise OSError(
                f"{self.fleet_host.id}: its access is {self.access} in hosts.nix: it takes forced commands alone; "
                "nothing was sent to it, deploy it"
            )

    @override
    def put_file(self, *args: Any, **arguments: Any) -> bool:
        self._require_shell()
        put = self.here.put_file if self.here else super().put_file
        return put(*args, **arguments) if self._ready() else True

    @override
    def get_file(self, *args: Any, **arguments: Any) -> bool:
        self._require_shell()
        get = self.here.get_file if self.here else super().get_file
        return get(*args, **arguments) if self._ready() else True

    @override
    def disconnect(self) -> None:
        self.drop()
        self._forget_known_hosts()
