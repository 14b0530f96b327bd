"""The gate's verdict of one tree, and of one after the other: which groups of inputs may go together."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import DeadlineExceeded, FleetError, ProcessFailed
from nixherd.base.process import Completed, run
from nixherd.base.terminal import one_line, visible
from nixherd.gate.lock.lockfile import LOCK_FILE, Group, Lock, Move, compose, moved, moves, shown
from nixherd.gate.lock.place import CommitRefused, Place
from nixherd.nix.errors import innermost_error

# A tree that is judged gets none of what the CI has for who pushes; nor does what the gate says count as the CI's own.
_OF_THE_CI = re.compile(
    r"(GITHUB|GH|ACTIONS|RUNNER|GITLAB|CI_JOB|CI_REGISTRY|GITEA|FORGEJO)_.*|SSH_AUTH_SOCK"
    r"|GIT_(?!CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)$).*|.*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL).*|(.*_)?KEY"
)
# With these a gate says that it could not do its work, and nothing of the tree: our own 4 and 5, timeout(1)'s 124,
# the shell's 126, 127, and 128 with a signal.
_NO_ANSWER = {4, 5, 124, 126, 127}
_FOUND = 1  # our own gate's, and no other status of it says that it looked
# Of what Nix and curl say, what is wrong with a network, a server or this machine.
_ELSEWHERE = re.compile(
    r"could(n't| not) (resolve|connect)|timeout was reached|timed out|connection (refused|reset)|rate limit"
    r"|HTTP error (403|429|5\d\d)|no space left on device|cannot allocate memory|cannot connect to (socket|daemon)",
    re.IGNORECASE,
)
_LINES = 8
_LONGEST = 400  # characters of a line
_WIDE = 72  # characters of a subject
Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """Whether a tree may be merged; `reasons` are lines, the first one the most telling.

    Without `answered` the gate has not judged the tree: it did not end in time, was killed, lacks a program.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    answered: bool = True

    @property
    def reason(self) -> str:
        return self.reasons[0] if self.reasons else "the gate gave no reason"


@dataclass(frozen=True)
class TreeGate:
    """`command` is the shell's, run in the fleet's directory, which is in $FLEET, too; `timeout` is in seconds."""

    command: str | None = None
    timeout: float = 4 * 3600.0

    def judge(self, fleet: Path, left: float = math.inf) -> Verdict:
        """`left` seconds are there at most. FleetError when the gate cannot be started."""
        bin = Path(sys.executable).parent
        env = {name: value for name, value in os.environ.items() if not _OF_THE_CI.fullmatch(name)}
        env |= {"PATH": f"{bin}:{env.get('PATH', os.defpath)}", "FLEET": str(fleet)}
        if self.command is not None:
            argv = ["/bin/sh", "-c", self.command]
        else:
            argv = [shutil.which("nixherd", path=env["PATH"]) or "nixherd", "--fleet", str(fleet), "check", "--json"]
        pids = set[int]()
        try:
            limit = min(self.timeout, left)
            done = run(argv, cwd=fleet, env=env, closed=True, timeout=limit, check=False, watch=pids.add)
        except DeadlineExceeded as error:
            return Verdict(False, (visible(error),), answered=False)
        except ProcessFailed as error:
            raise FleetError(f"the gate cannot be run: {error}") from error
        finally:
            for group in pids:  # what it left behind would go on in a tree that is another one by then
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
        if done.status == 0:
            return Verdict(True)
        found, unknown = _said(done.stdout)
        answered = 0 < done.status <= 128 and done.status not in _NO_ANSWER and not (unknown and not found)
        answered = answered and (self.command is not None or done.status == _FOUND)
        reasons = _reasons(found or unknown, done)
        answered = answered and not all(_ELSEWHERE.search(each) for each in reasons)
        more = (f"(and {len(reasons) - _LINES} more)",) if len(reasons) > _LINES else ()
        return Verdict(False, (*reasons[:_LINES], *more), answered)


def _reasons(found: Sequence[str], done: Completed) -> list[str]:
    found = list(found)
    if not found and "error:" in done.stderr:
        found = [innermost_error(done.stderr)]
    if not found:
        lines = (done.stderr if done.stderr.strip() else done.stdout).splitlines()
        found = [line.strip() for line in lines if line.strip()][-1:]
    return [visible(" ".join(line.split()))[:_LONGEST] for line in found or [f"status {done.status}"]]


def _said(text: str) -> tuple[list[str], list[str]]:
    """Of `nixherd check --json`: what each finding says, errors first, and what the tools that cannot tell say.

    Nothing where it is something else.
    """
    try:
        document = json.loads(text)
        rows = sorted(document["findings"], key=lambda row: row.get("severity") == "warning")
        tools = [f"{each['name']}: {each['reason']}" for each in document.get("tools", ()) if each.get("reason")]
        return [_line(row) for row in rows], tools
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], []


def _line(row: Mapping[str, object]) -> str:
    place = ":".join(str(row[key]) for key in ("file", "line") if row.get(key))
    what = next((str(row[key]) for key in ("what", "message", "text") if row.get(key)), "")
    return ": ".join(part for part in (str(row.get("tool") or ""), place, what) if part)


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
            raise FleetError(f"{LOCK_FILE} of {self.onto}: {what}; `nix flake lock` there, and commit it")
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
