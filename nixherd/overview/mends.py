"""Differences as work: what would mend each, in the order in which that is done, and what is left after it. Pure.

All is made of the document: what it does not know is not planned, and said to be not judged.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nixherd.overview.document import Mend

ORDER = (Mend.REKEY, Mend.ADOPT, Mend.BACKUP, Mend.APPLY, Mend.DEPLOY, Mend.REBOOT)
"""A deployment brings secrets that are encrypted by then, only what is adopted is changed, a backup is of what was
there before, and one reboot brings what was applied and what was deployed."""

NEEDS: Mapping[Mend, frozenset[Mend]] = {
    Mend.BACKUP: frozenset({Mend.ADOPT}),
    Mend.APPLY: frozenset({Mend.ADOPT}),
    Mend.DEPLOY: frozenset({Mend.REKEY}),
    Mend.REBOOT: frozenset({Mend.APPLY, Mend.DEPLOY}),
}
"""by mend: those that have to have succeeded on the same host, where they were to be done there"""

_FROM_ELSEWHERE = frozenset(("recipients", "guest", "backup"))
"""kinds of differences that are seen without the machine"""
_SECTIONS: Mapping[str, frozenset[str]] = {
    "revision": frozenset({"revision", "system"}),
    "dirty": frozenset({"revision", "system"}),
    "generation": frozenset({"generation", "system"}),
    "hostname": frozenset({"hostname", "system"}),
    "recipients": frozenset({"recipients", "secrets"}),
    "backup": frozenset({"backup", "backups", "guest"}),
}
"""by kind: the sections that are known where it is known whether a host differs so; else that of its name"""


@dataclass(frozen=True)
class Wrong:
    """A difference, in words."""

    kind: str
    what: str


@dataclass(frozen=True)
class Work:
    """A mend of one host, or of the fleet's files (`host` is None), and the differences that it mends."""

    host: str | None
    mend: Mend
    differences: tuple[Wrong, ...]
    command: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ByHand:
    """A difference that only a person mends, and the command to begin with."""

    host: str | None
    kind: str
    what: str
    command: tuple[str, ...] | None = None


@dataclass(frozen=True)
class NotJudged:
    """Sections of a host of which it is not known whether it differs, and why; `reach` where it did not answer, and
    `hypervisor`, of no host, where that did not."""

    host: str | None
    sections: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Plan:
    """What is to be done, in its order; what a person has to do; what nobody can say."""

    mends: tuple[Work, ...]
    by_hand: tuple[ByHand, ...]
    not_judged: tuple[NotJudged, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_of(document: Mapping[str, Any]) -> Plan:
    """What would mend each difference of the document; one row for a host and a mend."""
    rows, by_hand, works = list(_differences(document)), list[ByHand](), dict[tuple[Mend, str | None], Work]()
    for host, each in rows:
        command = tuple(each["command"]) if each["command"] else None
        if each["mend"] is None:
            by_hand.append(ByHand(host, str(each["kind"]), each["what"], command))
            continue
        mend, wrong = Mend(each["mend"]), Wrong(str(each["kind"]), each["what"])
        work = works.get((mend, host), Work(host, mend, (), command))
        works[mend, host] = Work(host, mend, (*work.differences, wrong), work.command)
    ordered = sorted(works.values(), key=lambda work: ORDER.index(work.mend))
    return Plan(tuple(ordered), tuple(by_hand), tuple(_not_judged(document)))


def _differences(document: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    yield from ((None, each) for each in document["differences"])
    for host in document["hosts"]:
        yield from ((host["host"], each) for each in host["differences"])


def _not_judged(document: Mapping[str, Any]) -> Iterator[NotJudged]:
    hypervisor = document["hypervisor"]
    if hypervisor["state"] in ("unreachable", "refused"):
        yield NotJudged(None, ("hypervisor",), hypervisor["why"] or hypervisor["state"])
    for host in document["hosts"]:
        reach, by_why = host["reach"], dict[str, dict[str, None]]()
        if reach["answered"] is False:
            by_why[reach["why"] or "it does not answer"] = {"reach": None}
        for section, why in host["unknown"].items():
            by_why.setdefault(why, {})[section] = None
        yield from (NotJudged(host["host"], tuple(sections), why) for why, sections in by_why.items())


_TOLD_BY: Mapping[Mend, frozenset[str]] = {
    Mend.REKEY: frozenset({"recipients"}),
    Mend.ADOPT: frozenset({"guest", "hypervisor"}),
    Mend.BACKUP: frozenset({"guest", "backup", "backups", "hypervisor"}),
    Mend.APPLY: frozenset({"guest", "hypervisor"}),
    Mend.DEPLOY: frozenset({"reach", "system", "revision", "generation", "hostname", "secrets"}),
    Mend.REBOOT: frozenset({"reach", "reboot", "system"}),
}
"""by mend: the sections by which it is known whether a host needs it"""


def unjudged(plan: Plan, chosen: Collection[Mend]) -> list[NotJudged]:
    """Of what is not judged, that by which it would be known whether a host needs one of these mends."""
    sections = frozenset[str]().union(*(_TOLD_BY[mend] for mend in chosen))
    return [each for each in plan.not_judged if sections & {*each.sections}]


def blocked(work: Work, failed: Collection[tuple[str | None, Mend]]) -> Mend | None:
    """The mend that this one needs and that failed for its host; None where none did."""
    needs = NEEDS.get(work.mend, frozenset())
    return next((mend for mend in ORDER if mend in needs and (work.host, mend) in failed), None)


@dataclass(frozen=True)
class Left:
    """What was to be mended and is not seen to be: it still differs, or (`is_unknown`) nobody can say."""

    host: str | None
    kind: str
    what: str
    is_unknown: bool = False


def left(works: Sequence[Work], chosen: Collection[Mend], document: Mapping[str, Any]) -> tuple[Left, ...]:
    """What of this work is not seen to be done, by a document that was made after it.

    A difference that came meanwhile and that a chosen mend would mend is left as well, on the hosts of the work.
    """
    kinds = dict[str | None, dict[str, None]]()
    for work in works:
        kinds.setdefault(work.host, {}).update(dict.fromkeys(each.kind for each in work.differences))
    views = {host["host"]: host for host in document["hosts"]}
    found = list[Left]()
    for host, meant in kinds.items():
        now = [each for owner, each in _differences(document) if owner == host]
        for each in now:
            if each["kind"] in meant or each["mend"] in chosen:
                found.append(Left(host, str(each["kind"]), each["what"]))
        if host is not None:
            differing = {each["kind"] for each in now}
            reasons = (_unseen(host, kind, views.get(host)) for kind in meant if kind not in differing)
            found += [reason for reason in reasons if reason]
    return tuple(found)


def _unseen(host: str, kind: str, view: Mapping[str, Any] | None) -> Left | None:
    """Why it is not known whether the host still differs so; None where it is seen that it does not."""
    if view is None:
        return Left(host, kind, "it was not looked at again", is_unknown=True)
    reach = view["reach"]
    if kind not in _FROM_ELSEWHERE and not reach["answered"]:
        return Left(host, kind, reach["why"] or "it does not answer", is_unknown=True)
    for section in sorted(_SECTIONS.get(kind, frozenset({kind}))):
        if section in view["unknown"]:
            return Left(host, kind, view["unknown"][section], is_unknown=True)
    if kind in ("guest", "backup") and view["guest"] is None:
        return Left(host, kind, "the hypervisor did not say", is_unknown=True)
    return None
