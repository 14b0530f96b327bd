"""Sends the requests through the guarded session of a real client to the API emulator, and reads the emulator's log.

    python -m tests.fuzz N [SEED]

Then it puts names that are near one that protects into a fleet's files; none may load without a word. The last line is
`fuzz: N requests, M on the wire`. What is judged is the log: what has not reached the server was refused before a
socket was touched.
"""

import json
import random
import ssl
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nixherd.base.errors import ApiError, FleetError, Refused
from nixherd.fleet.models import Fleet
from nixherd.proxmox import client as client_module
from nixherd.proxmox.client import _GuardedSession
from nixherd.proxmox.guard.policy import Policy
from tests.fuzz.names import mistake, names_are_judged, near_names
from tests.fuzz.requests import MANAGED, TEMPLATE, Request, named, random_request, systematic
from tests.nixherd.proxmox.conftest import TOKEN, Emulator, running, state
from tests.nixherd.proxmox.fleets import FLEET


@dataclass
class Outcome:
    """What was sent, and what the server's log has of it."""

    requests: int = 0
    refused: int = 0
    sent: list[tuple[Request, dict[str, Any]]] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


class Wire:
    """The guarded session, and the log behind it."""

    def __init__(self, emulator: Emulator, fleet: Fleet) -> None:
        self.emulator = emulator
        self.session = _GuardedSession(emulator.endpoint, Policy.from_fleet(fleet), emulator.token)
        self.base = f"https://127.0.0.1:{emulator.port}/api2/json"
        self._read = emulator.log.stat().st_size if emulator.log.exists() else 0

    def send(self, request: Request) -> bool:
        """Whether the policy let it through; whatever the server says of it is its own affair."""
        in_query = request.method in ("GET", "DELETE")
        try:
            self.session._request(
                request.method,
                self.base + request.path,
                request.params if in_query else None,
                None if in_query else request.params,
            )
        except Refused:
            return False
        except (ApiError, ValueError, FleetError):
            return True
        return True

    def logged(self) -> list[dict[str, Any]]:
        """What came in since the last look."""
        if not self.emulator.log.exists():
            return []
        with self.emulator.log.open() as log:
            log.seek(self._read)
            text = log.read()
            self._read = log.tell()
        return [json.loads(line) for line in text.splitlines()]


def fuzz(emulator: Emulator, requests: Iterable[Request]) -> Outcome:
    """Send them all; every mistake is a line."""
    outcome, wire = Outcome(), Wire(emulator, FLEET)
    for request in requests:
        outcome.requests += 1
        passed = wire.send(request)
        outcome.refused += not passed
        rows = wire.logged()
        outcome.sent += [(request, row) for row in rows]
        names = named(request)
        bad = {each for each in names if each not in (str(MANAGED), str(TEMPLATE))}
        if rows and bad:
            outcome.mistakes.append(f"{request} names {sorted(bad)} and reached the server")
        if rows and str(TEMPLATE) in names and not _only_copies(request):
            outcome.mistakes.append(f"{request} would change the template and reached the server")
        if request.passes is not None and request.passes != bool(rows):
            outcome.mistakes.append(f"{request} should {'' if request.passes else 'not '}have reached the server")
        if rows and not passed:
            outcome.mistakes.append(f"{request} was refused and reached the server all the same")
    return outcome


def _only_copies(request: Request) -> bool:
    """The template may stand as the source of a clone, and below a linked clone's own volume."""
    return request.path.endswith(f"/{TEMPLATE}/clone") or any(
        f"base-{TEMPLATE}-" in str(value) for value in request.params.values()
    )


def positive_control(emulator: Emulator) -> bool:
    """A request past the guard: the log shows it, so it would have shown any."""
    wire = Wire(emulator, FLEET)
    wire.logged()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"PVEAPIToken={TOKEN.id}={TOKEN.secret}"}
    url = f"{wire.base}/nodes/prom/qemu/104/status/current"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context) as answer:
        answer.read()
    return [row["path"] for row in wire.logged()] == ["/nodes/prom/qemu/104/status/current"]


def main(words: list[str]) -> int:
    count, seed = int(words[0]) if words else 100_000, int(words[1]) if len(words) > 1 else 1
    client_module.REFUSED_PAUSES = ()
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), state()) as emulator:
        if not positive_control(emulator):
            print("fuzz: the log did not show a request past the guard; nothing is proven")
            return 1
        whole = fuzz(emulator, _all(dice, count))
    verdicts = Counter(row["status"] for _, row in whole.sent)
    print(f"fuzz: seed {seed}, {whole.refused} refused before a socket was touched; answers: {dict(verdicts)}")
    for line in whole.mistakes[:20]:
        print(f"fuzz: MISTAKE {line}")
    wrong = _names(dice, count // 10)
    print(f"fuzz: {whole.requests} requests, {len(whole.sent)} on the wire")
    return 1 if whole.mistakes or not whole.sent or wrong else 0


def _names(dice: random.Random, count: int) -> list[str]:
    """Put near names into a fleet's files; every mistake is a line."""
    wrong = (
        []
        if names_are_judged()
        else ["the fleet is not sound without a name, or what protects is not; nothing is proven"]
    )
    wrong += [output for named in near_names(dice, count) if (output := mistake(named))]
    for each in wrong[:20]:
        print(f"fuzz: MISTAKE {each}")
    print(f"fuzz: {count} near names, {len(wrong)} of them protect nothing and load")
    return wrong


def _all(dice: random.Random, count: int) -> Iterator[Request]:
    """Half of them the systematic ones, from all over, as far as there are so many; the others random."""
    ordered = list(systematic())
    known, rest = (
        [each for each in ordered if each.passes is not None],
        [each for each in ordered if each.passes is None],
    )
    chosen = known + dice.sample(rest, min(len(rest), max(0, count // 2 - len(known))))
    yield from chosen
    for _ in range(count - len(chosen)):
        yield random_request(dice)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
