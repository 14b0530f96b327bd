"""The tools of the gate, by name, the fast ones first; they share one scope, and run side by side."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from nixherd.base.errors import FAILURES, FleetError, FleetInvalid, Usage
from nixherd.base.process import interrupt_all
from nixherd.base.run import Run
from nixherd.base.terminal import worded
from nixherd.base.waiting import once_property
from nixherd.fleet.changeset import interrupted
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, Fleet
from nixherd.fleet.revisions import Tree
from nixherd.gate import configurations, files, programs
from nixherd.gate.files import Place
from nixherd.gate.results import Found, Look, Missing, Result, Unknown
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator

QUICK = 300.0  # seconds
SLOW = 4 * 3600.0
_FLAKE = "flake.nix"
_INTERRUPTED = "a run was interrupted while it published its changes; `nixherd secrets apply` finishes them"
_PATIENCE = 10.0  # seconds, after which it is said what is waited for
Say = Callable[[str], None]
LookAtSecrets = Callable[[Path, Fleet], tuple[Sequence[str], str]]
"""What is wrong, a line each, and what was looked at. Raises FleetError."""


@dataclass
class Scope:
    """What the tools of one run share: the fleet's directory, the files that are looked at, one evaluation.

    Use it as a context manager. `deadline` is in seconds for each tool, None what is usual. `chosen` are the Nix files
    to look at where somebody named them.
    """

    root: Path
    look_at_secrets: LookAtSecrets
    only_changed: bool = False
    deadline: float | None = None
    chosen: Sequence[str] | None = None
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> "Scope":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @once_property
    def repository(self) -> Repository | None:
        return Repository.around(self.root)

    @once_property
    def place(self) -> Place:
        """The files that the tools which take files look at, where they do."""
        if self.chosen is not None:
            return Place(self.root, self.chosen, self.root)
        if not self.only_changed:
            place = files.of_fleet(self.root, self.repository)
            if not place.nix:
                raise FleetError(f"{self.root}: has no Nix file{' that git knows' if self.repository else ''}")
            return place
        if self.repository is None:
            raise FleetError(f"{self.root}: is not in a git repository; leave --changed out")
        return self._held.enter_context(files.copied(self.root, files.changed(self.repository)))

    @once_property
    def fleet(self) -> Fleet:
        return load_fleet(self.root)

    @property
    def usable(self) -> Fleet:
        """The same, Unknown where hosts.nix or the definitions cannot be used, which `definitions` tells of."""
        try:
            return self.fleet
        except FleetInvalid as error:
            why = f"{error.findings[0]}" + (f" (and {len(error.findings) - 1} more)" if error.findings[1:] else "")
            raise Unknown(f"the fleet's hosts cannot be told: {why}") from error

    @once_property
    def builder(self) -> Builder:
        """Unknown without a flake: Nix would look for one above the directory, and take that."""
        if not (self.root / _FLAKE).is_file():
            raise Unknown(f"{_FLAKE} is missing, so nothing can be evaluated")
        fleet = self.usable
        run = Run(fleet.id)
        self._held.callback(run.close)
        return Builder(Evaluator(fleet, run, partial(Tree, fleet.path)))

    def limit(self, usual: float) -> float:
        return self.deadline or usual

    def unmerged(self) -> Sequence[str]:
        return files.unmerged(self.repository) if self.repository else ()


@dataclass(frozen=True)
class Tool:
    """`is_quick`: it takes seconds, and is run before a commit."""

    name: str
    what: str
    check: Callable[[Scope], Look]
    is_quick: bool = True


def _definitions(scope: Scope) -> Look:
    try:
        findings: Sequence[str] = scope.fleet.warnings
        note = f"{len(scope.fleet.hosts)} hosts, {len(scope.fleet.vms)} guests"
    except FleetInvalid as error:
        findings, note = error.findings, ""
    found = [Found.of_text(each, str(scope.root)) for each in findings]
    return Look(configurations.with_lines(scope.root, found), note)


def _secrets(scope: Scope) -> Look:
    """Find private keys in plain text, and what `nixherd secrets status` tells of the secret files."""
    findings = [*files.private_keys(scope.place)]
    try:
        fleet = scope.usable
        findings += [Found.of_text(_INTERRUPTED)] if interrupted(scope.root) else []
        lines, note = scope.look_at_secrets(scope.root, fleet)
    except FleetError as error:
        return Look(findings, unknown=str(error))
    return Look([*findings, *(Found.of_text(line, str(scope.root)) for line in lines)], note)


def _flake(scope: Scope) -> Look:
    if not (scope.root / _FLAKE).is_file():
        return Look([Found("is not there", _FLAKE, remedy="a fleet is a flake; the reference fleet has one")])
    try:
        find = configurations.file_of(scope.usable)
    except FleetError:  # the flake is judged all the same

        def find(_: str) -> str | None:
            return None

    return configurations.flake_check(str(scope.root), scope.root, scope.limit(SLOW), find)


def _looks(check: Callable[[Place, float], Look]) -> Callable[[Scope], Look]:
    return lambda scope: check(scope.place, scope.limit(QUICK))


def _evaluates(check: Callable[[Fleet, Evaluator], Look]) -> Callable[[Scope], Look]:
    def look(scope: Scope) -> Look:
        evaluator = scope.builder.evaluator  # Unknown without a flake comes first
        return check(scope.usable, evaluator)

    return look


def _builds(scope: Scope) -> Look:
    builder = scope.builder  # Unknown without a flake comes first
    return configurations.builds(scope.usable, builder)


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("alejandra", "formatting", _looks(programs.alejandra)),
        Tool("deadnix", "unused code", _looks(programs.deadnix)),
        Tool("statix", "lints", _looks(programs.statix)),
        Tool("merge", "unresolved conflicts", lambda scope: files.conflicts(scope.place, scope.unmerged)),
        Tool("definitions", f"hosts.nix and {DEFINITIONS}", _definitions),
        Tool("secrets", "who can decrypt which file", _secrets),
        Tool("lockout", "ways to root", _evaluates(configurations.lockout), is_quick=False),
        Tool("closures", "what every commit would change", _evaluates(configurations.closures), is_quick=False),
        Tool("flake", "nix flake check", _flake, is_quick=False),
        Tool("builds", "every configuration built", _builds, is_quick=False),
    )
}


def require_known(names: Collection[str], option: str) -> None:
    """Raise Usage for the name of a tool that does not exist."""
    for name in names:
        if name not in TOOLS:
            raise Usage(f"{option} {name}: the tool does not exist; there are {', '.join(TOOLS)}")


def run_all(
    scope: Scope, without: Collection[str] = (), only: Collection[str] = (), say: Say | None = None
) -> Iterator[Result]:
    """How each tool ends, in the order of TOOLS, as soon as it and all before it have ended.

    `without` are left out by the operator's word, as is everything but `only`, where that is given. `say` is told what
    is waited for, each time that it changes.
    """
    if set(only or TOOLS) <= set(without):
        raise Usage("nothing is left to run; leave out fewer tools")
    reasons = {name: _why_not(tool, scope, without, only) for name, tool in TOOLS.items()}
    chosen = [tool for name, tool in TOOLS.items() if not reasons[name]]
    say = cache(say) if say else None
    pool = ThreadPoolExecutor(max(1, len(chosen)))
    try:
        # The slow ones begin first: the others fit beside them.
        running = {tool.name: pool.submit(_timed, tool, scope) for tool in reversed(chosen)}
        for name in TOOLS:
            if reasons[name]:
                yield Result(name, not_run=True, note=reasons[name])
                continue
            _wait(running[name], running, say)
            yield running[name].result()
    except KeyboardInterrupt:
        interrupt_all()  # a Ctrl-C does not reach what we have started
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _why_not(tool: Tool, scope: Scope, without: Collection[str], only: Collection[str]) -> str:
    if tool.name in without:
        return "--without"
    if only:
        return "" if tool.name in only else "--only"
    return "--changed" if scope.only_changed and not tool.is_quick else ""


def _wait(one: "Future[Result]", running: "dict[str, Future[Result]]", say: Say | None) -> None:
    while say:
        try:
            one.result(_PATIENCE)
        except TimeoutError:
            left = [name for name, each in running.items() if not each.done()]
            say(f"{len(running) - len(left)} of {len(running)} done, waiting for {', '.join(reversed(left))}")
        else:
            return


def _timed(tool: Tool, scope: Scope) -> Result:
    began = time.monotonic()
    look, missing = Look(), False
    try:
        look = tool.check(scope)
    except Missing as error:
        look, missing = Look(unknown=f"{error}; --without {tool.name} leaves it out, and says so"), True
    except FAILURES as error:
        look = Look(unknown=str(worded(error, f"{scope.root}: {tool.name}")))
    seconds = time.monotonic() - began
    return Result(tool.name, tuple(look.findings), look.unknown, missing, note=look.note, seconds=seconds)
