"""What runs where, gathered: the fleet's files, its machines and the hypervisor are asked, side by side.

A machine is asked once, and by its pinned key alone; the hypervisor only reads.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nixherd.base.errors import FAILURES, Exit, FleetError
from nixherd.base.names import many
from nixherd.base.terminal import worded
from nixherd.cli.front import Front
from nixherd.cli.looking import look
from nixherd.deploy.history import HistoryLine, changes_by_host, person
from nixherd.deploy.timeline import contradictions, last
from nixherd.fleet.git import Repository
from nixherd.fleet.groups import select
from nixherd.fleet.revisions import Tree
from nixherd.overview.document import Deployment, Hypervisor, Overview, Reach
from nixherd.overview.expected import Expected, Kept, unevaluated
from nixherd.overview.guests import GuestsSeen, look_at_guests
from nixherd.overview.judge import BACKUP_AGE, Told, judge, parsed, written
from nixherd.overview.last_seen import LastSeen, SeenBefore
from nixherd.overview.machine import Seen
from nixherd.overview.secrets import SecretsSeen, look_at_secrets
from nixherd.trust.secrets.store import Secrets


def gather(
    front: Front,
    hosts: Sequence[str] = (),
    *,
    evaluate: bool = True,
    vm: bool = True,
    exclude: Sequence[str] = (),
    data: Sequence[str] = (),
    backup_age: timedelta = BACKUP_AGE,
    tell: Callable[[str], None] = lambda line: None,
) -> Overview:
    """Ask for everything that the document has of these hosts and groups, or of all. FleetError where the fleet's own
    files cannot be read; what is wrong with one host is said of that one."""
    began, now = time.monotonic(), datetime.now(UTC)
    ids = select(front.fleet, hosts, exclude) if hosts or exclude else list(front.fleet.hosts)
    front.complete(ids)
    revision = Tree(front.fleet.path).revision
    kept = Kept(front.run.state_directory)
    with ThreadPoolExecutor(2) as pool:
        looking = pool.submit(_guests, front, ids, asks=vm)
        by_host = changes_by_host(str(front.root))
        if evaluate:
            expected = _evaluated(front, ids, kept, tell)
        else:
            expected = unevaluated(revision, ids, kept.recall(revision), _deployed(by_host, revision))
        tell(f"asking {many(len(ids), 'host')}")
        read = pool.submit(_secrets, front, expected)
        # in this thread, which Ctrl-C interrupts
        machines = look(front, ids, expected, data, asks_hypervisor=vm, tell=tell)
        guests, secrets = looking.result(), read.result()
    before = SeenBefore(front.run.state_directory)
    known = before.recall()
    told = {id: _told(id, machines.get(id), known.get(id, LastSeen()), guests, secrets, now) for id in ids}
    before.keep({id: _last_seen(each, known.get(id, LastSeen()), now) for id, each in told.items()})
    behind = _behind(
        front, {each.seen.running.revision for each in told.values() if each.seen and each.seen.running}, revision
    )
    views = [
        judge(
            front.fleet.hosts[id], expected[id], _with_history(each, by_host.get(id, []), behind, now), now, backup_age
        )
        for id, each in told.items()
    ]
    return Overview(
        fleet=str(front.root),
        taken=written(now),
        revision=revision,
        hosts=tuple(views),
        hypervisor=guests.hypervisor,
        differences=secrets.differences,
        operator=person(),
        seconds=round(time.monotonic() - began, 3),
    )


def _evaluated(front: Front, ids: Sequence[str], kept: Kept, tell: Callable[[str], None]) -> dict[str, Expected]:
    """What hosts are to be, evaluated together; of one that cannot be, why."""
    tell(f"evaluating {many(len(ids), 'host')}")
    found = dict[str, Expected]()
    for id in ids:
        try:
            found[id] = Expected.of(front.evaluator.evaluate(ids, id))
        except FAILURES as error:
            why = str(worded(error, f"{id}: evaluating it")).removeprefix(f"{id}: ").splitlines()[0]
            found[id] = Expected(why=f"it cannot be evaluated: {why}")
    good = {id: each for id, each in found.items() if each.system}
    for revision in {each.revision for each in good.values()}:
        kept.keep(revision, {id: each for id, each in good.items() if each.revision == revision})
    return found


def _told(
    id: str, answer: Mapping[str, Any] | None, last: LastSeen, guests: GuestsSeen, secrets: SecretsSeen, now: datetime
) -> Told:
    """All of one host, what was last seen of it in place of an answer."""
    answer = answer or {"why": "it was not asked"}
    common: dict[str, Any] = {
        "key": answer.get("key"),
        "guest": guests.guests.get(id),
        "no_guest": guests.unknown.get(id),
        "no_backups": guests.no_backups.get(id),
        "readers": secrets.of(id),
    }
    if "seen" in answer:
        reach = Reach(True, answer.get("address"), at=written(now), age=0)
        return Told(reach, Seen.from_json(answer["seen"]), **common)
    age = int((now - parsed(last.at)).total_seconds()) if last.at else None
    address = answer.get("address") or last.address
    reach = Reach(False, address, answer["why"], last.at, age, last.missing_since or written(now))
    return Told(reach, last.seen, **common)


def _deployed(by_host: Mapping[str, list[HistoryLine]], revision: str | None) -> dict[str, str]:
    """By host, what was deployed of this very revision, and proven."""
    if revision is None or revision.endswith("-dirty"):
        return {}
    found = dict[str, str]()
    for host, lines in by_host.items():
        for line in lines:
            if line.revision == revision and line.after and line.changed and line.exit == int(Exit.DONE):
                found[host] = line.after
    return found


def _with_history(told: Told, lines: list[HistoryLine], behind: Mapping[str, int | None], now: datetime) -> Told:
    notes = (told.seen.notes if told.seen else None) or ()
    running = told.seen.running if told.seen else None
    event = last(lines, notes, running.current if running else None, now)
    deployment = (
        Deployment(event.when, event.who, event.run, event.number, event.outcome, event.revision, event.source)
        if event
        else None
    )
    found = tuple(contradictions(lines, notes, now)) if told.reach.answered else ()
    return replace(told, behind=behind, last=deployment, contradictions=found)


def _last_seen(told: Told, last: LastSeen, now: datetime) -> LastSeen:
    if told.reach.answered:
        return LastSeen(written(now), told.reach.address, told.seen)
    return replace(last, missing_since=told.reach.since)


def _behind(front: Front, revisions: set[str | None], desired: str | None) -> dict[str, int | None]:
    """How many commits of the desired revision each of these has not; None where git cannot tell."""
    try:
        repository = Repository.around(Path(front.fleet.path)) if desired else None
    except FleetError:
        repository = None
    if repository is None or desired is None:
        return {}
    found = dict[str, int | None]()
    for revision in filter(None, revisions):
        commit, target = revision.removesuffix("-dirty"), desired.removesuffix("-dirty")
        ahead = repository.reachable("--count", f"{target}..{commit}", "--")
        count = repository.reachable("--count", f"{commit}..{target}", "--")
        found[revision] = int(count[0]) if ahead == ["0"] and count else None
    return found


def _secrets(front: Front, expected: Mapping[str, Expected]) -> SecretsSeen:
    try:
        return look_at_secrets(front.fleet, Secrets.load(front.root), {id: each.files for id, each in expected.items()})
    except FAILURES as error:
        return SecretsSeen(problem=str(worded(error, "reading the secrets' rules")).splitlines()[0])


def _guests(front: Front, ids: Sequence[str], *, asks: bool) -> GuestsSeen:
    """Ask the hypervisor, where the fleet has one and it is to be asked."""
    vms = {id: vm for id in ids if (vm := front.fleet.vm_of(id))}
    if front.fleet.endpoint is None:
        return GuestsSeen(Hypervisor("none"))
    endpoint = f"{front.fleet.endpoint.host}:{front.fleet.endpoint.port}"
    if not asks or not vms:
        return GuestsSeen(Hypervisor("not asked", endpoint))
    return look_at_guests(front.hypervisor, front.fleet, vms)


def gather_afresh(front: Front, hosts: Sequence[str] = (), **how: Any) -> Overview:
    """The same in an invocation of its own: the fleet's files are read anew. For whoever looks again and again."""
    fresh = replace(front)
    try:
        return gather(fresh, hosts, **how)
    finally:
        fresh.close()
