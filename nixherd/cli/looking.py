"""Machines are looked at: each is asked once what it is like, all side by side.

It is done in this process. Where the operator's data say of single hosts or groups how they are reached, or `--data`
says anything, it is a run of pyinfra, which makes of them what it makes of them in every other run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from nixherd.base.controller import require_linux
from nixherd.base.errors import FAILURES, NotSent
from nixherd.base.terminal import worded
from nixherd.cli.front import Front
from nixherd.cli.host_rows import rows_of, run_for
from nixherd.cli.run_pyinfra import PARALLEL
from nixherd.deploy.protocol import Kind
from nixherd.fleet.place import operators_data
from nixherd.link.failures import stranger_in
from nixherd.link.link import Surroundings
from nixherd.link.machine import LinkedMachine
from nixherd.link.plain import Login, PlainLink
from nixherd.overview.expected import Expected
from nixherd.overview.last_seen import SeenBefore
from nixherd.overview.machine import ask
from nixherd.proxmox.hypervisor import Hypervisor

LOOK = "nixherd.operations.machines.look"
Answer = dict[str, Any]
"""`seen`, `address` and host `key` of a machine that answered; else `why`, and what is known of the rest."""


def look(
    front: Front,
    ids: Sequence[str],
    expected: Mapping[str, Expected],
    data: Sequence[str] = (),
    *,
    asks_hypervisor: bool,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Answer]:
    """By host what it answered, and `why` where it did not answer."""
    if not ids:
        return {}
    login = None if data else Login.said_in(operators_data(front.directory))
    if login is None:
        return _by_pyinfra(front, ids, expected, data, asks_hypervisor=asks_hypervisor)
    require_linux()
    unasked = Hypervisor(front.fleet, front.token_path, may_ask=False)
    around = Surroundings(front.fleet, front.run, front.keys, front.hypervisor if asks_hypervisor else unasked)
    before = SeenBefore(front.run.state_directory).addresses

    def one(id: str) -> Answer:
        link = PlainLink(around, front.fleet.hosts[id], login, before=before, tell=lambda text: tell(f"{id}: {text}"))
        try:
            return _asked(link, expected[id].secrets or ())
        finally:
            link.drop()

    return _side_by_side(ids, one)


def _asked(link: PlainLink, secrets: Sequence[str]) -> Answer:
    """What one machine answers. Nothing is raised: what goes wrong is said of this one."""
    host = link.fleet_host
    try:
        place = link.answering()
    except FAILURES as failure:
        error = failure if isinstance(failure, OSError) else worded(failure, f"{host.id}: connecting")
        stranger = stranger_in(failure)
        shown = {"address": stranger.address, "key": stranger.shown} if stranger else {}
        return {**shown, "why": _why(host.id, link.why_never(error, installs=False) or error)}
    answer = {"address": place.address, "key": place.host_key or None}
    kind = Kind.SYSTEM if host.is_nixos else Kind.HOME
    try:
        try:
            seen = ask(LinkedMachine(link), kind, secrets)
        except NotSent:  # the connection was dead before it was asked
            link.answering()
            seen = ask(LinkedMachine(link), kind, secrets)
    except FAILURES as error:
        return {"why": _why(host.id, error)}
    return {**answer, "seen": seen.to_json(), "why": None}


def _why(id: str, error: BaseException) -> str:
    return str(worded(error, f"{id}: asking what it is like")).removeprefix(f"{id}: ")


def _side_by_side(ids: Sequence[str], one: Callable[[str], Answer]) -> dict[str, Answer]:
    """Ask so many at once. Ctrl-C ends it at once: whoever is asked then is left to itself."""
    answers, left = SimpleQueue[tuple[str, Answer]](), iter([*ids])

    def work() -> None:
        for id in left:
            try:
                answers.put((id, one(id)))
            except BaseException as error:  # noqa: BLE001  whoever waits for it would wait for ever
                answers.put((id, {"why": _why(id, error)}))

    for _ in range(min(PARALLEL, len(ids))):
        Thread(target=work, daemon=True).start()
    found = dict(answers.get() for _ in ids)
    return {id: found[id] for id in ids}


def _by_pyinfra(
    front: Front, ids: Sequence[str], expected: Mapping[str, Expected], data: Sequence[str], *, asks_hypervisor: bool
) -> dict[str, Answer]:
    answers = front.run.directory / "looks"
    answers.mkdir(exist_ok=True)
    paths = front.run.directory / "secrets.json"
    paths.write_text(json.dumps({id: list(each.secrets or ()) for id, each in expected.items()}))
    words = [LOOK, f"answers={json.dumps(str(answers))}", f"secrets={json.dumps(str(paths))}"]
    given = [*data, *([] if asks_hypervisor else ["ask_hypervisor=false"])]
    # who does not answer is in the document: nothing of it is narrated beside that
    ended = run_for(front, words, ids, given, dry=False, asks=True, keep=False, stream=lambda line: None)
    if ended.interrupted:
        raise KeyboardInterrupt
    rows = {row["host"]: row for row in rows_of(ended, dry=False)}
    if not rows:
        raise ended.failure
    found = dict[str, Answer]()
    for id in ids:
        answer = _answer(answers / f"{id}.json")
        row = rows.get(id)
        why = (row or {}).get("why") or "the run ended before it was asked"
        noted = [entry for entry in ended.entries if entry.get("host") == id and "shown_key" in entry]
        if noted and not answer:
            answer = {"address": noted[-1]["address"], "key": noted[-1]["shown_key"]}
        found[id] = {**answer, "why": None if "seen" in answer else why.removeprefix(f"{id}: ")}
    return found


def _answer(path: Path) -> Answer:
    try:
        found: Answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
