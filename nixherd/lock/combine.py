"""Which groups of inputs may go together, as the gate says: all at once if it can be, else one after the other.

What comes out is a commit that the gate has let through as it is; nothing else is ever merged. A group that it does not
let through is left behind, with its reason, and does not keep the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nixherd.errors import FleetError
from nixherd.lock import resolve
from nixherd.lock.groups import Group
from nixherd.lock.lockfile import Lock, Move, compose, moved, moves
from nixherd.lock.place import Place
from nixherd.lock.report import message_of
from nixherd.lock.verdicts import TreeGate, Verdict

Say = Callable[[str], None]


@dataclass(frozen=True)
class Left:
    """A group that stays as it is, and what the gate said against it."""

    group: Group
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """An update of the commit `base`: `commit` is what passed the gate, None where nothing moved that may.

    `unknown` says by input why it could not be looked up.
    """

    base: str
    commit: str | None
    moves: tuple[Move, ...]
    left: tuple[Left, ...]
    unknown: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Combiner:
    """An update in one place: `base` is a commit, `onto` what people call it; `signed`: commits have to be."""

    place: Place
    gate: TreeGate
    base: str
    onto: str
    signed: bool
    say: Say

    def update(self, groups: Sequence[Group]) -> Outcome:
        """Look the groups' inputs up, and find which may go. FleetError when the base does not pass by itself."""
        old = self.place.lock(self.onto)
        unknown = dict(resolve.update(self.place.fleet, groups))
        new = self.place.lock(f"{self.onto}, updated")
        differing = set(moved(old, new))
        waiting = [
            group for group in groups if differing.intersection(group.inputs) and not unknown.keys() & set(group.inputs)
        ]
        commit, taken, left = self._combine(old, new, waiting) if waiting else (None, [], ())
        shown = tuple(moves(old, self._locked(old, new, taken))) if commit else ()
        return Outcome(self.base, commit, shown, left, tuple(unknown.items()))

    def _combine(
        self, old: Lock, new: Lock, waiting: Sequence[Group]
    ) -> tuple[str | None, list[Group], tuple[Left, ...]]:
        commit, verdict = self._try(old, new, waiting)
        if verdict.passed:
            return commit, list(waiting), ()
        self._require_sound_base()
        reasons = {tuple(waiting): verdict.reasons}
        best, taken, left = None, list[Group](), list(waiting)
        while left:
            before = len(left)
            for group in list(left):
                wanted = tuple(each for each in waiting if each in taken or each == group)
                if wanted in reasons:
                    continue
                commit, verdict = self._try(old, new, wanted)
                if verdict.passed:
                    best, taken = commit, [*taken, group]
                    left.remove(group)
                else:
                    reasons[wanted] = verdict.reasons
            if len(left) == before:  # what was taken since has not let another one through
                break
        said = {group: reasons[tuple(each for each in waiting if each in taken or each == group)] for group in left}
        return best, taken, tuple(Left(group, said[group]) for group in left)

    def _try(self, old: Lock, new: Lock, groups: Sequence[Group]) -> tuple[str | None, Verdict]:
        """A commit of the base with these groups, and what the gate says of it."""
        names = ", ".join(map(str, groups))
        self.place.at(self.base)
        locked = self._locked(old, new, groups)
        self.place.write(locked)
        wrong = resolve.is_consistent(self.place.fleet) if moved(locked, new) else None  # else it is Nix's own
        if wrong:
            return None, Verdict(False, (f"cannot be locked without the others: {wrong}",))
        self.say(f"gate: {names}")
        message = message_of(moves(old, locked), groups)
        commit = self.place.commit(message, signed=self.signed)
        verdict = self._judge()
        self.say(f"gate: {names}: {'passed' if verdict.passed else f'stopped: {verdict.reason}'}")
        return commit, verdict

    def _judge(self) -> Verdict:
        verdict = self.gate.judge(self.place.fleet)
        if verdict.passed and (changed := self.place.differs()):
            raise FleetError(f"the gate changed {changed[0]}: what it judged is not what would be merged")
        return verdict

    def _require_sound_base(self) -> None:
        """So that no input is blamed for what was wrong before."""
        self.place.at(self.base)
        self.say(f"gate: {self.onto} as it is")
        verdict = self._judge()
        if not verdict.passed:
            raise FleetError(f"{self.onto} itself stops at the gate, so nothing is updated: {verdict.reason}")

    def _locked(self, old: Lock, new: Lock, groups: Sequence[Group]) -> Lock:
        return compose(old, new, {input for group in groups for input in group.inputs})
