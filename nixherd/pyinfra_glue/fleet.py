"""`@fleet/ID`: pyinfra's SSH connector for a machine that may not exist yet, and moves while we work on it.

pyinfra connects, prepares, then executes; a VM that is created during a run would be unreachable in it. So:

- `connect()` without a machine returns quietly; with one it pins the host key and connects;
- a fact before Execute on an absent machine takes its default; our own operations are told that nothing was asked, and
  so is pyinfra in runs whose machines must answer;
- a command during Execute looks the machine up again when the connection is gone, and raises OSError, which
  fails this host only, when there is none within the deadline.

What answers is of use only as the installed system, but in runs that install one: their operations say so. How it is
found, and proves what it is: `nixherd.link`.

With `local` among the host's data it is the machine that we run on, and its shell takes the place of SSH.
"""

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from paramiko import SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput, OutputLine
from typing_extensions import override

from nixherd.base.errors import (
    FAILURES,
    UNFORESEEN,
    DeadlineExceeded,
    FleetError,
    Misused,
    NotSent,
    Refused,
    Unforeseen,
    Unusable,
)
from nixherd.base.names import parse_seconds
from nixherd.base.process import Completed
from nixherd.base.terminal import Narrator, worded
from nixherd.base.waiting import Backoff, poll
from nixherd.deploy.report import Outcome
from nixherd.fleet.models import Access
from nixherd.link import proving
from nixherd.link.client import DeadConnection, PinnedClient
from nixherd.link.failures import Stranger, Unwelcome, is_one, stranger_in
from nixherd.locate import reach
from nixherd.locate.reach import Absent, Epoch, Look, Place
from nixherd.pyinfra_glue import connector
from nixherd.pyinfra_glue.connector import ApiQuery, Unasked
from nixherd.pyinfra_glue.inventory import inventory_beside, named_by_connector
from nixherd.pyinfra_glue.reaching import MachineConnector
from nixherd.ssh.destination import Destination
from nixherd.ssh.login_shell import Answer, answered

T = TypeVar("T")

# sshd shuts out addresses that connect and leave again and again (PerSourcePenalties: a second for each time)
STRANGER_PAUSE = 1.0
UNWELCOME_PAUSE = 20.0  # seconds between tries where our keys are refused, after the first ones: sshd counts those, too
PAUSES = Backoff(0.05, 1.0, 1.1)  # seconds between two looks at a machine that is on its way
DEFAULT_DEADLINE = 300.0  # seconds for a machine to come up


class FleetConnector(MachineConnector):
    """One per host."""

    @override
    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        return named_by_connector("fleet", name, inventory_beside)

    @property
    def deadline(self) -> float:
        """Seconds. Misused when boot_deadline is not a number of them."""
        given = self.host.data.get("boot_deadline")
        try:
            return DEFAULT_DEADLINE if given is None else parse_seconds(given)
        except ValueError as error:
            raise Misused(f"--data boot_deadline={error}") from None

    @override
    def connect(self) -> None:
        if self.host.data.get("api_only"):
            return  # nothing in this run asks the machine itself
        must_answer = self.host.data.get("must_answer", False)
        connected = False
        try:
            self.deadline  # noqa: B018  a wrong one is said before anything is changed
            # whether this run installs is not known yet; one that only asks, or deploys, does not
            connected = (self.answering() if must_answer else self.try_once(Look.anywhere())) is not None
        except FAILURES as failure:
            error = failure if isinstance(failure, OSError) else worded(failure, f"{self.fleet_host.id}: connecting")
            self._forget_known_hosts()
            if stranger := stranger_in(failure):
                note = self.context.run.journal.note
                note("found", self.fleet_host.id, shown_key=stranger.shown, address=stranger.address)
            reason = self.why_never(error, installs=not must_answer) or (error if must_answer else None)
            if reason:
                self.context.run.failed(self.fleet_host.id, reason, outcome=Outcome.UNREACHABLE)
                text = str(reason)
                raise ConnectError(self._said_once(text) if isinstance(error, Unusable) else text) from error
            self.host.log(f"absent: {error.what}" if isinstance(error, Absent) else f"not reached yet: {error}")
        finally:
            self._report(present=connected)

    def _said_once(self, reason: str) -> str:
        """What stops many hosts, in full for the first of them."""
        first = self.context.run.first_to_say(reason, self.fleet_host.id)
        return reason if first == self.fleet_host.id else f"not connected, for the same reason as {first}"

    def _forget_known_hosts(self) -> None:
        with suppress(*FAILURES):  # this must not end what else ends now; the next run removes what is left
            shutil.rmtree(self.context.run.known_hosts_of(self.fleet_host.id), ignore_errors=True)

    def reach(self, deadline: float | None = None, *, epochs: Collection[Epoch] = (), absent_ok: bool = False) -> Place:
        """The place of this machine, connected, in one of `epochs` (else of this run's), within `deadline` seconds.

        `absent_ok` goes on waiting for a machine that is switched off for now, as during a reboot. Raises
        FleetError (Absent, DeadlineExceeded, …) when there is nothing to connect to.
        """
        epochs = epochs or self.epochs
        if self.connected and self.place and self.place.epoch in epochs:
            return self.place
        if self._stands and self.place and self.place.epoch not in self.epochs:
            raise self.not_installed(self.place, self.place.epoch)  # this run has no business with it
        limit = self.deadline if deadline is None else deadline
        waiting = poll(limit, PAUSES)
        narrator, done = Narrator(self.host.log), set[str]()
        between = (min(UNWELCOME_PAUSE, 2.0**tries) for tries in count())
        refused = ""  # what answered last, if it did not let us in: the reason, whatever else was looked at since
        try:
            for _ in waiting:
                try:
                    if place := self.try_once(Look(epochs, self.epochs, max(1.0, waiting.left), narrator, done)):
                        return place
                except Absent as error:
                    if not absent_ok:
                        raise
                    narrator(error.what)
                    refused = ""
                except OSError as error:
                    narrator(str(error))
                    refused = str(error) if is_one(error, Unwelcome) else ""
                    if is_one(error, Stranger):
                        time.sleep(STRANGER_PAUSE)
                    elif is_one(error, Unwelcome):
                        time.sleep(min(next(between), waiting.left))
            raise DeadlineExceeded(f"{self.fleet_host.id}: waiting for {' or '.join(epochs)}: not within {limit:.0f} s")
        except DeadlineExceeded as error:
            raise type(error)(f"{error}; last: {refused or narrator.last or 'no answer'}") from None

    def destination(self) -> Destination:
        """How OpenSSH (Nix, tar) reaches the machine where we are connected."""
        return self.configured(self.way_to(self.reach()))

    def prove_for_wiping(self) -> None:
        """Refused unless root of the guest that is to be wiped is root of the machine where we are connected.

        It writes a file there: only when executing. Nothing where the machine is not a guest with an agent.
        """
        place, client = self.reach(), self.client
        if self._lacks_proof(place):
            raise Refused(
                f"{self.fleet_host.id} at {place.address} was found by its name and its key, which is not proof for "
                "wiping it; nothing was done there: run this again"
            )
        if place.identity is None or not place.identity.has_agent or client is self._has_the_word:
            return
        if not isinstance(client, PinnedClient):
            return
        proving.prove_by_word(self.context.hypervisor, client, place.identity, place.address, self.become)
        self._has_the_word = client

    def told_key(self) -> str | None:
        """The host key that only the agent of an installed guest tells, once whoever shows it has proved to be that
        guest; None while no such guest runs. FleetError when it does not."""
        place = reach.told_place(self.context.hypervisor, self.context.keys, self.fleet_host)
        if place is None:
            return None
        try:
            self.open(place)
        except OSError as error:
            raise FleetError(
                f"{self.fleet_host.id}: the host key that its agent tells cannot be proven: {error}; "
                f"or put its publicKey into {self.context.fleet.file} yourself"
            ) from error
        finally:
            self.drop()
        return place.host_key

    # Working

    def _ready(self) -> bool:
        """Connected; False for a machine that is absent while we only plan. NotSent past the deadline."""
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
            raise NotSent(str(error)) from error
        return True

    def _require_ready(self) -> None:
        if not self._ready():
            raise Unasked(f"{self.fleet_host.id}: not connected, so it was not asked; run this again when it answers")

    @override
    def run_shell_command(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """Run it; on a connection that turns out to be dead before it has begun, look the machine up and run it there.

        Raises OSError, which to pyinfra is this host's failure, when the connection breaks later, no machine is found,
        or for what nobody foresaw. What the hypervisor is asked needs no machine.
        """
        if isinstance(command, ApiQuery):
            return self._ask(command)
        try:
            return self.send(command, *args, **arguments)
        except Unasked:
            if self.host.data.get("must_answer"):
                raise
            return True, CommandOutput([])  # for facts of others, of a machine that this run may make

    def send(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """Do the same for whoever must not take silence for an answer: Unasked by an absent machine in planning."""
        self._require_shell()
        run = self.here.run_shell_command if self.here else super().run_shell_command
        try:
            return self._tell(lambda: run(command, *args, **arguments))
        except UNFORESEEN as error:
            raise worded(error, f"{self.fleet_host.id}: running a command") from error

    def _tell(self, tell: Callable[[], T]) -> T:
        """What it answers; told once more where the connection was dead before.

        Unasked while it is absent in planning, OSError when the connection breaks later.
        """
        try:
            self._require_ready()
            try:
                return tell()
            except DeadConnection:
                self.drop()
                self._require_ready()
                return tell()
        except (SSHException, EOFError) as error:
            raise OSError(f"{self.fleet_host.id}: the connection broke: {str(error) or 'no answer'}") from error

    def _ask(self, query: ApiQuery) -> tuple[bool, CommandOutput]:
        try:
            found = connector.api_answer(self.context.hypervisor, self.fleet_host.id, query)
        except FAILURES as failure:
            error = worded(failure, f"{self.fleet_host.id}: {query}")
            self.context.run.failed(self.fleet_host.id, error)
            return False, CommandOutput([OutputLine("stderr", line) for line in str(error).splitlines()])
        return True, CommandOutput([OutputLine("stdout", json.dumps(found))])

    def forced(self, words: str, timeout: float) -> tuple[bool, CommandOutput]:
        """Say these words to a machine that takes forced commands alone, as they are; OSError when it is not there."""

        def say() -> Completed:
            if self.client is None:
                raise NotSent(f"{self.fleet_host.id}: not connected")
            return self.client.say(words, timeout)

        done = self._tell(say)
        answer, noise = answered(done.stdout.splitlines())
        self.name_noise(Answer("", noise=noise))
        lines = [OutputLine("stdout", line) for line in answer]
        lines += [OutputLine("stderr", line) for line in done.stderr.splitlines()]
        return done.status == 0, CommandOutput(lines)

    def _require_shell(self) -> None:
        if self.access is not Access.SHELL:
            why = f"its access is {self.access} in {self.context.fleet.file}: it takes forced commands alone"
            raise NotSent(f"{self.fleet_host.id}: {why}; nothing was sent to it, deploy it")

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
