"""`nixherd fix`: what differs is mended by what deploy, reboot, secrets apply, vm adopt, vm backup and vm apply do."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from nixherd.base.errors import FAILURES, EndUnknown, Exit, FleetError, Refused, Usage, worst
from nixherd.base.names import many
from nixherd.base.terminal import worded
from nixherd.cli.drift import FLEET, unjudged_lines
from nixherd.cli.front import Front, pass_front
from nixherd.cli.metrics import status_document
from nixherd.cli.output import can_ask, narrate
from nixherd.cli.parameters import (
    SudoPassword,
    Text,
    ask_sudo_password_option,
    data_option,
    dry_run_option,
    json_option,
    sudo_password,
    yes_option,
)
from nixherd.fleet.models import DEFINITIONS, Vm
from nixherd.overview.document import Mend
from nixherd.overview.mends import ORDER, Left, NotJudged, Work, blocked, left, plan_of, unjudged

if TYPE_CHECKING:
    from nixherd.proxmox.guest.adopt import Candidate

_VERBS = {
    Mend.REKEY: "encrypt its secret files for whom their rules name",
    Mend.ADOPT: "adopt its guest",
    Mend.BACKUP: "back its guest up",
    Mend.APPLY: "bring its guest to its definition",
    Mend.DEPLOY: "deploy to it",
    Mend.REBOOT: "reboot it",
}
_OF_GUESTS = (Mend.ADOPT, Mend.BACKUP, Mend.APPLY)


def _mends(text: str) -> tuple[Mend, ...]:
    words = [word for word in text.split(",") if word]
    strangers = [word for word in words if word not in list(Mend)]
    if strangers or not words:
        known = ", ".join(ORDER)
        raise ValueError(f"{', '.join(strangers) or repr(text)} is not a mend; there are {known}")
    return tuple(map(Mend, words))


@dataclass(frozen=True)
class Row:
    """What became of one mend: done, planned, failed, unknown, held or refused; `why` where it is not done."""

    work: Work
    outcome: str
    why: str | None = None

    @property
    def exit(self) -> Exit:
        exits = {"done": Exit.DONE, "planned": Exit.DONE, "refused": Exit.REFUSED, "unknown": Exit.UNKNOWN}
        return exits.get(self.outcome, Exit.FAILED)

    @property
    def name(self) -> str:
        return self.work.host or FLEET

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.work), "outcome": self.outcome, "why": self.why, "exit": int(self.exit)}

    def __str__(self) -> str:
        why = f": {self.why.removeprefix(f'{self.name}: ')}" if self.why else ""
        return f"{self.name}: {self.work.mend}: {self.outcome}{why}"


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--only", multiple=True, required=True, type=Text("mends", _mends), metavar="MEND[,MEND]...",
              help=f"What may be done: {', '.join(ORDER)}.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated.")
@data_option
@ask_sudo_password_option
@dry_run_option
@yes_option
@json_option
@pass_front
def fix(
    front: Front,
    /,
    hosts: Sequence[str],
    only: Sequence[Sequence[Mend]],
    exclude: Sequence[str],
    data: Sequence[str],
    ask_sudo_password: bool,
) -> int:
    """Mend what differs on hosts, as far as --only says, and look again; `nixherd drift` shows what there is.

    Each mend is what its own command does, with that command's guard. Status 0 only where the differences that were to
    be mended are seen to be gone.
    """
    chosen = tuple(mend for mend in ORDER if any(mend in each for each in only))
    if not (front.dry_run or front.yes or can_ask()):  # before machines are asked for minutes
        raise Usage("fix: nothing was done: without a terminal to ask on, say --yes")
    plan = plan_of(status_document(front, hosts, exclude=exclude, data=data))
    ready = Ready.of(front, [work for work in plan.mends if work.mend in chosen])
    narrate(map(str, ready.refused))  # before anything begins
    works, unseen = ready.works, unjudged(plan, chosen)
    if not works or front.dry_run:
        return _report(front, chosen, [*ready.refused, *(Row(work, "planned") for work in works)], (), unseen)
    count = many(len({work.host for work in works}), "host")
    front.confirm(f"Do this on {count}?", "fix: nothing was done", plan=ready.lines)
    rows = _carried_out(front, ready, data, sudo_password(ask_sudo_password))
    begun = [row.work for row in rows if row.outcome != "held"]
    touched = [host for host in dict.fromkeys(work.host for work in begun) if host]
    with _part(front) as part:
        document = status_document(part, touched or hosts, exclude=() if touched else exclude, data=data)
    unseen = [each for each in unseen if each.host not in touched]
    return _report(front, chosen, [*ready.refused, *rows], left(begun, chosen, document), unseen)


@dataclass(frozen=True)
class Ready:
    """The work that may begin, and what may not and why; `shown` are the guests to be adopted, as they were seen."""

    works: Sequence[Work]
    refused: Sequence[Row]
    shown: Mapping[str, "Candidate"] = field(default_factory=dict)

    @classmethod
    def of(cls, front: Front, works: Iterable[Work]) -> "Ready":
        """Ask the definitions, and of guests to be adopted the hypervisor; nothing is changed."""
        good, refused, shown = list[Work](), list[Row](), dict[str, "Candidate"]()
        for work in works:
            row = _attempt(work, partial(_look_first, front, work, shown))
            if row.outcome == "done":
                good.append(work)
            else:
                refused.append(row)
        return cls(good, refused, shown)

    @property
    def lines(self) -> Iterator[str]:
        """The plan, for whom it is shown to before it begins."""
        for work in self.works:
            reasons = "; ".join(each.what for each in work.differences)
            yield f"{work.host or FLEET}: would {_VERBS[work.mend]} ({reasons})"
            if work.mend is Mend.ADOPT:
                guest = self.shown[str(work.host)]
                yield from (f"{work.host}: {line}" for line in (guest.known_by, *guest.differs))


def _look_first(front: Front, work: Work, shown: dict[str, "Candidate"]) -> None:
    """Refused where the definitions say that the guest is not to be changed, or not rebooted by us."""
    if work.mend in _OF_GUESTS:
        from nixherd.proxmox.guest.identity import require_may_change

        require_may_change(_guest(front, work), str(work.mend))
    elif work.mend is Mend.REBOOT and work.host:
        from nixherd.proxmox.permission import require_rebootable

        require_rebootable(front.fleet, work.host)
    if work.mend is Mend.ADOPT:
        from nixherd.proxmox.guest.adopt import candidate

        vm = _guest(front, work)
        shown[str(work.host)] = candidate(front.client, front.fleet, vm, front.fleet.hosts.get(vm.host_id or ""))


def _guest(front: Front, work: Work) -> Vm:
    vm = front.fleet.vm_of(work.host or "")
    if vm is None:
        raise Refused(f"{work.host} has no guest in {DEFINITIONS}; refusing to {work.mend} it")
    return vm


@contextmanager
def _part(front: Front) -> Iterator[Front]:
    """A front for a part of the work, which was confirmed: what it holds is given back at its end."""
    part = replace(front, is_part=True, yes=True, wrote=False)
    try:
        yield part
    finally:
        front.wrote = front.wrote or part.changed
        part.close()


def _carried_out(front: Front, ready: Ready, data: Sequence[str], typed: SudoPassword) -> list[Row]:
    """Do the work, mend by mend; what needs one that failed on the same host is held."""
    rows = list[Row]()
    failed = {(row.work.host, row.work.mend) for row in ready.refused}
    for mend in ORDER:
        held = {work: why for work in ready.works if work.mend is mend and (why := blocked(work, failed))}
        works = [work for work in ready.works if work.mend is mend and work not in held]
        new = [Row(work, "held", f"{why} was not done on it") for work, why in held.items()]
        if works:
            new += _rows(front, mend, works, ready, data, typed)
        rows += new
        failed |= {(row.work.host, mend) for row in new if row.exit is not Exit.DONE}
        narrate(str(row) for row in new if row.exit is not Exit.DONE)
    return rows


def _rows(
    front: Front, mend: Mend, works: Sequence[Work], ready: Ready, data: Sequence[str], typed: SudoPassword
) -> Iterator[Row]:
    """Do this for all of these hosts, and say what became of each."""
    if mend in _OF_GUESTS:
        for work in works:
            yield _attempt(work, partial(_change_guest, front, work, ready))
    elif mend is Mend.REKEY:
        first = _attempt(works[0], partial(_rekey, front))
        yield from (replace(first, work=work) for work in works)
    else:
        why = dict[str, tuple[str, str | None]]()
        ended = _attempt(works[0], lambda: why.update(_roll_out(front, mend, works, data, typed)))
        for work in works:
            yield Row(work, *why.get(str(work.host), (ended.outcome, ended.why)))


def _attempt(work: Work, act: Callable[[], None]) -> Row:
    try:
        act()
    except FAILURES as error:
        failure = worded(error, f"{work.host or FLEET}: {work.mend}")
        outcome = "unknown" if isinstance(error, EndUnknown) else "refused" if isinstance(error, Refused) else "failed"
        return Row(work, outcome, str(failure))
    return Row(work, "done")


def _rekey(front: Front) -> None:
    from nixherd.cli.secrets import rekey

    with _part(front) as part:
        commit, edit = part.standing("commit"), part.standing("edit_generated")
        how: dict[str, Any] = {"identity": part.standing("age_identity"), "message": None, "rotate": False}
        how |= {"give_up": False, "commit": commit is not False, "edit_generated": bool(edit)}
        if rekey(part, **how):
            raise FleetError("not every file is known to be encrypted for whom its rule names; see above")


def _change_guest(front: Front, work: Work, ready: Ready) -> None:
    with _part(front) as part:
        vm = _guest(part, work)
        if work.mend is Mend.ADOPT:
            from nixherd.proxmox.guest.adopt import adopt
            from nixherd.proxmox.guest.identity import label

            act = partial(adopt, part.client, part.fleet, vm, ready.shown[str(work.host)], timeout=part.timeout)
            part.timed(label(vm), vm.host_id or vm.name, act)
            return
        from nixherd.proxmox.guest.verbs import COMMANDS

        if part.act(vm.name, COMMANDS[str(work.mend)](by_person=True)):
            raise FleetError("something is left that has to be done by hand; see above")


def _roll_out(
    front: Front, mend: Mend, works: Sequence[Work], data: Sequence[str], typed: SudoPassword
) -> dict[str, tuple[str, str | None]]:
    """Deploy to the hosts or reboot them; by host the outcome, and why it is not done."""
    from nixherd.cli.deploy import DEPLOY, REBOOT, carried_out
    from nixherd.cli.summary import lines

    hosts = [str(work.host) for work in works]
    data = [*data, *typed.data]
    with _part(front) as part:
        words = DEPLOY if mend is Mend.DEPLOY else REBOOT
        ended, result = carried_out(part, words, hosts, data=data, dry=False, exclude=(), input=typed.line)
        if not result.hosts and not ended.interrupted:
            status = Exit(ended.not_begun())
            raise FleetError(f"it did not begin, see above (status {int(status)})")
        front.wrote = True
        ended.report(result.exit, result.to_json(), lambda _: narrate(lines(result, dry=False, number=ended.number)))
    if ended.interrupted:
        raise KeyboardInterrupt
    words_of = {Exit.DONE: "done", Exit.UNKNOWN: "unknown"}
    return {each.host: (words_of.get(each.outcome.exit, "failed"), each.why) for each in result.hosts}


def _report(
    front: Front, chosen: Sequence[Mend], rows: Sequence[Row], remains: Sequence[Left], unseen: Sequence[NotJudged]
) -> int:
    """Show what was done, and what is left as it was read back; return the status."""
    exits = [row.exit for row in rows]
    exits += [Exit.UNKNOWN if each.is_unknown else Exit.FAILED for each in remains]
    exits += [Exit.REMOTE if {"reach", "hypervisor"} & {*each.sections} else Exit.UNKNOWN for each in unseen]
    status = worst(each for each in exits if each is not Exit.DONE)
    if status is Exit.REFUSED and any(row.outcome == "done" for row in rows):  # which says that nothing was sent
        status = Exit.FAILED
    document = {
        "only": list(chosen),
        "dry": front.dry_run,
        "mends": [row.to_json() for row in rows],
        "left": [asdict(each) for each in remains],
        "not_judged": [asdict(each) for each in unseen],
        "exit": int(status),
    }
    texts = [str(row) for row in rows]
    for each in remains:
        texts.append(f"{each.host or FLEET}: {'not known' if each.is_unknown else 'left'}: {each.kind}: {each.what}")
    texts += unjudged_lines(unseen)
    front.show(document, texts or [f"nothing to do: nothing that {', '.join(chosen)} would mend"])
    return int(status)
