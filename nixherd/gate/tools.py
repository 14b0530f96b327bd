"""The tools of the gate, by name, the fast ones first, and what a run of them shares."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nixherd.errors import FleetError, FleetInvalid
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.fleet.revisions import Tree
from nixherd.gate import alejandra, deadnix, flake, hosts, keys, merge, secrets, statix
from nixherd.gate.files import Place, changed, copied, of_fleet, read_all, unmerged
from nixherd.gate.results import Found, Look, Unknown
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator
from nixherd.once import Once
from nixherd.run import Run

QUICK = 300.0  # seconds
SLOW = 4 * 3600.0
_FLAKE = "flake.nix"


@dataclass
class Scope:
    """What the tools of one run share: the fleet's directory, the files that are looked at, one evaluation.

    Use it as a context manager. `deadline` is in seconds for each tool, None what is usual. `chosen` are the Nix files
    to look at where somebody named them.
    """

    root: Path
    only_changed: bool = False
    deadline: float | None = None
    chosen: Sequence[str] | None = None
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    _repository: Once[Repository | None] = field(default_factory=lambda: Once("the fleet's repository"), repr=False)
    _place: Once[Place] = field(default_factory=lambda: Once("the files that are looked at"), repr=False)
    _fleet: Once[Fleet] = field(default_factory=lambda: Once("the fleet"), repr=False)
    _builder: Once[Builder] = field(default_factory=lambda: Once("the fleet's evaluation"), repr=False)

    def __enter__(self) -> "Scope":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def repository(self) -> Repository | None:
        return self._repository(lambda: Repository.around(self.root))

    @property
    def place(self) -> Place:
        """The files that the tools which take files look at, where they do."""
        return self._place(self._find_place)

    def _find_place(self) -> Place:
        if self.chosen is not None:
            return Place(self.root, self.chosen, self.root)
        if not self.only_changed:
            place = of_fleet(self.root, self.repository)
            if not place.nix:
                raise FleetError(f"{self.root}: there is no Nix file{' that git knows' if self.repository else ''}")
            return place
        if self.repository is None:
            raise FleetError(
                f"{self.root}: is in no git repository, so nobody knows what is changed; leave --changed out"
            )
        found = changed(self.repository)
        contents = {**found.staged, **read_all(self.root, found.others)}
        return self._held.enter_context(copied(self.root, contents))

    @property
    def fleet(self) -> Fleet:
        return self._fleet(lambda: load_fleet(self.root))

    @property
    def usable(self) -> Fleet:
        """The same, Unknown where hosts.nix or the definitions cannot be used, which `definitions` tells of."""
        try:
            return self.fleet
        except FleetInvalid as error:
            why = f"{error.findings[0]}" + (f" (and {len(error.findings) - 1} more)" if error.findings[1:] else "")
            raise Unknown(f"the fleet's hosts cannot be told: {why}") from error

    @property
    def builder(self) -> Builder:
        """Unknown without a flake: Nix would look for one above the directory, and take that."""
        if not (self.root / _FLAKE).is_file():
            raise Unknown(f"there is no {_FLAKE}, so nothing can be evaluated")
        return self._builder(lambda: self._begin(self.usable))

    def _begin(self, fleet: Fleet) -> Builder:
        run = Run(fleet.id)
        self._held.callback(run.close)
        return Builder(Evaluator(fleet, run, partial(Tree, fleet.path)))

    def limit(self, usual: float) -> float:
        return self.deadline or usual

    def unmerged(self) -> Sequence[str]:
        return unmerged(self.repository) if self.repository else ()


@dataclass(frozen=True)
class Tool:
    """`is_quick`: it takes seconds, and is run before a commit. `is_program`: it is another's, and takes files."""

    name: str
    what: str
    check: Callable[[Scope], Look]
    is_quick: bool = True
    is_program: bool = False


def _definitions(scope: Scope) -> Look:
    try:
        findings: Sequence[str] = scope.fleet.warnings
        note = f"{len(scope.fleet.hosts)} hosts, {len(scope.fleet.vms)} guests"
    except FleetInvalid as error:
        findings, note = error.findings, ""
    found = [Found.of_text(each, str(scope.root)) for each in findings]
    return Look(hosts.with_lines(scope.root, found), note)


def _secrets(scope: Scope) -> Look:
    found = [*keys.find(scope.place)]
    try:
        look = secrets.check(scope.root, scope.usable)
    except FleetError as error:
        return Look(found, unknown=str(error))
    return Look([*found, *look.findings], look.note, look.unknown)


def _flake(scope: Scope) -> Look:
    if not (scope.root / _FLAKE).is_file():
        return Look([Found("is not there", _FLAKE, remedy="a fleet is a flake; the reference fleet has one")])
    try:
        find = hosts.file_of(scope.usable)
    except FleetError:  # the flake is judged all the same

        def find(_: str) -> str | None:
            return None

    return flake.check(str(scope.root), scope.root, scope.limit(SLOW), find)


def _lockout(scope: Scope) -> Look:
    evaluator = scope.builder.evaluator
    return hosts.lockout(scope.usable, evaluator)


def _closures(scope: Scope) -> Look:
    evaluator = scope.builder.evaluator
    return hosts.closures(scope.usable, evaluator)


def _builds(scope: Scope) -> Look:
    builder = scope.builder
    return hosts.builds(scope.usable, builder)


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "alejandra",
            "formatting",
            lambda scope: alejandra.check(scope.place, scope.limit(QUICK)),
            is_program=True,
        ),
        Tool("deadnix", "unused code", lambda scope: deadnix.check(scope.place, scope.limit(QUICK)), is_program=True),
        Tool("statix", "lints", lambda scope: statix.check(scope.place, scope.limit(QUICK)), is_program=True),
        Tool("merge", "unresolved conflicts", lambda scope: merge.check(scope.place, scope.unmerged)),
        Tool("definitions", "hosts.nix and vms/definitions.nix", _definitions),
        Tool("secrets", "who can decrypt which file", _secrets),
        Tool("lockout", "ways to root", _lockout, is_quick=False),
        Tool("closures", "what every commit would change", _closures, is_quick=False),
        Tool("flake", "nix flake check", _flake, is_quick=False),
        Tool("builds", "every configuration built", _builds, is_quick=False),
    )
}
