"""Which groups of inputs may go together, as the gate says: all at once if it can be, else one after the other.

What comes out is a commit that the gate has let through as it is; nothing else is ever merged. A group that it does not
let through is left behind, with its reason, and does not keep the others. What moved is told in a commit's message, and
in Markdown for a summary; words of others (an input's lock, a builder's last words) are shown as text, whatever they
hold.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nixherd.base.display import one_line
from nixherd.base.errors import FleetError
from nixherd.gate.lock.lockfile import FILE, Group, Lock, Move, compose, moved, moves, shown
from nixherd.gate.lock.place import CommitRefused, Place
from nixherd.gate.lock.verdicts import TreeGate, Verdict

Say = Callable[[str], None]


@dataclass(frozen=True)
class Left:
    """A group that stays as it is, and what the gate said against it."""

    group: Group
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """An update of the commit `base`: `commit` is what passed the gate, None where nothing moved that may.

    `unknown` says by input why nobody can tell: it could not be looked up, or the gate gave no answer about it.
    """

    base: str
    commit: str | None
    moves: tuple[Move, ...]
    left: tuple[Left, ...]
    unknown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Combiner:
    """An update in one place: `base` is a commit, `onto` what people call it; `signed`: commits have to be.

    `until` is when no more is asked of the gate, by time.monotonic().
    """

    place: Place
    gate: TreeGate
    base: str
    onto: str
    signed: bool
    say: Say
    until: float = math.inf

    def update(self, groups: Sequence[Group]) -> Outcome:
        """Look the groups' inputs up, and find which may go. FleetError when the base does not pass by itself."""
        old = self.place.lock(self.onto)
        if wrong := self.place.why_inconsistent():
            what = f"does not fit its flake.nix, or that cannot be read: {wrong}"
            raise FleetError(f"{FILE} of {self.onto}: {what}; `nix flake lock` there, and commit it")
        unknown = dict(self.place.update_inputs(groups))
        new = self.place.lock(f"{self.onto}, updated")
        differing = set(moved(old, new))
        able = [group for group in groups if unknown.keys().isdisjoint(group.inputs)]
        waiting = [group for group in able if differing.intersection(group.inputs)]
        commit, taken, left, unsaid = self._combine(old, new, waiting) if waiting else (None, [], (), {})
        moved_inputs = tuple(moves(old, self._locked(old, new, taken))) if commit else ()
        return Outcome(self.base, commit, moved_inputs, left, (*unknown.items(), *unsaid.items()))

    def _combine(
        self, old: Lock, new: Lock, waiting: Sequence[Group]
    ) -> tuple[str | None, list[Group], tuple[Left, ...], dict[str, str]]:
        commit, verdict = self._try(old, new, waiting)
        if verdict.passed:
            return commit, list(waiting), (), {}
        if not verdict.answered and time.monotonic() >= self.until:
            return None, [], (), {input: verdict.reason for group in waiting for input in group.inputs}
        self._require_sound_base()
        verdicts = {tuple(waiting): verdict}
        best, taken, left = None, list[Group](), list(waiting)
        while left:
            before = len(left)
            for group in list(left):
                tried = tuple(each for each in waiting if each in taken or each == group)
                if tried in verdicts:
                    continue
                commit, verdict = self._try(old, new, tried)
                if verdict.passed:
                    best, taken = commit, [*taken, group]
                    left.remove(group)
                else:
                    verdicts[tried] = verdict
            if len(left) == before:  # what was taken since has not let another one through
                break
        last = {group: verdicts[tuple(each for each in waiting if each in taken or each == group)] for group in left}
        unsaid = {input: last[group].reason for group in left if not last[group].answered for input in group.inputs}
        return best, taken, tuple(Left(group, last[group].reasons) for group in left if last[group].answered), unsaid

    def _try(self, old: Lock, new: Lock, groups: Sequence[Group]) -> tuple[str | None, Verdict]:
        """A commit of the base with these groups, and what the gate says of it."""
        names = ", ".join(map(str, groups))
        if time.monotonic() >= self.until:
            return None, Verdict(False, ("no time was left to ask the gate",), answered=False)
        self.place.at(self.base)
        locked = self._locked(old, new, groups)
        self.place.write(locked)
        wrong = self.place.why_inconsistent() if moved(locked, new) else None  # else it is Nix's own
        if wrong:
            return None, Verdict(False, (f"cannot be locked without the others: {wrong}",))
        self.say(f"gate: {names}")
        message = message_of(moves(old, locked), groups)
        commit = None
        try:
            commit = self.place.commit(message, signed=self.signed)
            verdict = self._judge(commit)
        except CommitRefused as error:
            if self.signed:
                raise
            verdict = Verdict(False, (str(error),), answered=False)  # a hook that looks at this tree
        how = "passed" if verdict.passed else f"{'stopped' if verdict.answered else 'no answer'}: {verdict.reason}"
        self.say(f"gate: {names}: {how}")
        return commit, verdict

    def _judge(self, commit: str) -> Verdict:
        verdict = self.gate.judge(self.place.fleet, max(1.0, self.until - time.monotonic()))
        if verdict.passed and (head := self.place.git.full_head()) != commit:
            raise FleetError(f"the gate left HEAD at {head[:12]}: what it judged is not what would be merged")
        if verdict.passed and (changed := self.place.differs()):
            raise FleetError(f"the gate changed {changed[0]}: what it judged is not what would be merged")
        return verdict

    def _require_sound_base(self) -> None:
        """So that no input is blamed for what was wrong before."""
        self.place.at(self.base)
        self.say(f"gate: {self.onto} as it is")
        verdict = self._judge(self.base)
        if not verdict.answered:
            raise FleetError(f"the gate gives no answer, about {self.onto} as it is neither: {verdict.reason}")
        if not verdict.passed:
            raise FleetError(f"{self.onto} itself stops at the gate, so nothing is updated: {verdict.reason}")

    def _locked(self, old: Lock, new: Lock, groups: Sequence[Group]) -> Lock:
        return compose(old, new, {input for group in groups for input in group.inputs})


_WIDE = 72  # characters of a subject


def message_of(moves: Sequence[Move], groups: Sequence[Group]) -> str:
    """A commit's message: what moved, and from where to where."""
    names = [input for group in groups for input in group.inputs]
    subject = f"flake.lock: update {', '.join(names)}"
    if len(subject) > _WIDE:
        subject = f"flake.lock: update {len(names)} inputs"
    paragraphs = [subject, "\n".join(_move_lines(moves))]
    # git takes a line that begins with # for a comment, where the operator's settings have it edit messages
    return re.sub(r"^#", " #", "\n\n".join(each for each in paragraphs if each), flags=re.MULTILINE) + "\n"


def _move_lines(moves: Iterable[Move]) -> Iterable[str]:
    for move in moves:
        nested = len(move.path) > 1
        yield f"{'  ' if nested else ''}- {one_line(move)}"
        if move.link and not nested:
            yield f"  {move.link}"


def markdown_of(outcome: Outcome, ended: str) -> str:
    """The whole outcome; `ended` is what became of it, in a line."""
    parts = ["# flake.lock", one_line(ended)]
    if outcome.moves:
        parts.append("\n".join(["| input | before | now | |", "|---|---|---|---|", *map(_row, outcome.moves)]))
    for left in outcome.left:
        parts.append(f"## Left behind: {_code(str(left.group))}\n\nIt stops at the gate:\n\n{_block(left.reasons)}")
    for input, why in outcome.unknown:
        parts.append(f"## Unknown: {_code(input)}\n\nNobody can tell, and it is as it was:\n\n{_block([why])}")
    return "\n\n".join(parts) + "\n"


def _row(move: Move) -> str:
    link = f"[compare]({move.link})" if move.link else ""
    older = "older than before " if move.is_older else ""
    return f"| {_code(move.name)} | {_code(shown(move.old))} | {_code(shown(move.new))} | {older}{link} |"


def _code(text: str) -> str:
    return "`" + re.sub(r"[`|\\\n]", "_", one_line(text)) + "`"


def _block(lines: Iterable[str]) -> str:
    text = "\n".join(one_line(line) for line in lines)
    fence = "`" * max(3, 1 + max((len(each) for each in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
