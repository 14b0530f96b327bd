"""The commands of `machine.sh`, which deploys on the machine, and what it answers. Pure.

The program stands with the fleet's modules, which have to be whole without us; here is a link to it.

Each command is a shell text to be run as root, and what it reads on stdin.
"""

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.deploy.options import Goal
from nixherd.fleet.revisions import noted_of, of_running, word_of
from nixherd.nix.commands import is_store_path, revision_of

GC_ROOTS = "/nix/var/nix/gcroots/nixherd"
GATE = "nixherd"  # the word before those of machine.sh on a machine that takes forced commands alone
PROTOCOL = 3
"""The version of what is said to machine.sh and answered by it; that one is spoken, and the one before."""
LOOK = 10  # seconds that one look waits for another state
_SAFE = re.compile(r"[A-Za-z0-9@._:+-]+")
_GONE = f"echo protocol={PROTOCOL}; echo state=none"  # a reboot has forgotten it
PARTS = ("units.sh", "revisions.sh", "ends.sh", "watching.sh", "machine.sh")


class Unclear(FleetError):
    """What a machine answered does not say how its deployment stands: noise, or the rest was cut off."""


class Kind(StrEnum):
    """What is deployed: a machine's system, by root, or a home, by its user. The value is the program's word."""

    SYSTEM = "system"
    HOME = "home"

    @property
    def directory(self) -> str:
        """Where the program keeps its notes until the next boot, for a shell."""
        if self is Kind.SYSTEM:
            return "/run/nixherd/deploy"
        return '"$HOME/.local/state/nixherd/deploy-$(cat /proc/sys/kernel/random/boot_id)"'


class Stage(StrEnum):
    """How far a deployment is on its machine. The value is the program's word."""

    ARMED = "armed"
    ACTIVATING = "activating"
    PROVING = "proving"
    KEEPING = "keeping"
    REVERTING = "reverting"
    KEPT = "kept"
    REVERTED = "reverted"
    REFUSED = "refused"
    STUCK = "stuck"
    LOST = "lost"
    NONE = "none"

    @property
    def is_end(self) -> bool:
        return self not in (Stage.ARMED, Stage.ACTIVATING, Stage.PROVING, Stage.KEEPING, Stage.REVERTING)


@dataclass(frozen=True)
class Standing:
    """What the machine says of a deployment. Paths are store paths; None where it does not know.

    `left` is how many seconds the word is still waited for; `waits` names the units that hold the activation up,
    `failed` those that have failed since, `aside` those whose failure does not count; `busy` who else deploys to it;
    `log` is the end of the activation's output. `inhibited` is what a switch would need a boot for, `held` why its
    owner wants no deployment now, `stuck` what is in the way of going back, `moved` where somebody else has let the
    profile lead meanwhile, `was` where it led before.
    `unwell` and `at_work` are units too: those that fail and did not when something was kept last, and activations.
    `revision` is that of what runs, `configuration_revision` what the system itself says of it; `noted` is what the
    machine notes of what runs, `kept_as` of what was kept, and `unnoted` why it could not.
    `in_the_way` are files of a home that its generation does not replace, `backed_up` what became of such files.
    """

    stage: Stage
    id: str | None = None
    who: str | None = None
    why: str | None = None
    new: str | None = None
    old: str | None = None
    left: int | None = None
    waits: str | None = None
    failed: str | None = None
    current: str | None = None
    profile: str | None = None
    boot_id: str | None = None
    hostname: str | None = None
    revision: str | None = None
    configuration_revision: str | None = None
    busy: str | None = None
    aside: str | None = None
    inhibited: str | None = None
    held: str | None = None
    stuck: str | None = None
    moved: str | None = None
    was: str | None = None
    unwell: str | None = None
    at_work: str | None = None
    init: str | None = None
    inhibitors: str | None = None
    noted: str | None = None
    kept_as: str | None = None
    unnoted: str | None = None
    protocol: int = PROTOCOL
    log: tuple[str, ...] = ()
    in_the_way: tuple[str, ...] = ()
    backed_up: tuple[str, ...] = ()

    @property
    def kept_revision(self) -> str | None:
        """The revision that it notes what was kept to be of."""
        return noted_of(self.new, self.kept_as)


@dataclass(frozen=True)
class Deployment:
    """One on one machine; `deadline` and `confirm` are seconds: for the activation, and for the word after it."""

    id: str
    who: str
    goal: Goal
    system: str
    specialisation: str | None
    deadline: int
    confirm: int
    kind: Kind = Kind.SYSTEM
    generation: int | None = None
    """the system's number in the profile, where it is to be that generation again and not a new one"""
    gated: bool = False
    """whether the machine takes these words and no other, from a program that it has itself"""
    reboot: bool = False
    """whether the machine may boot what ran before, where nothing else brings that back"""
    unchecked: bool = False
    """whether it is switched to whatever it says against that itself"""
    protocol: int = PROTOCOL
    """which version the machine's own program speaks"""
    revision: str | None = None
    """the fleet's that it is of, where that is known"""
    backup: str | None = None
    """the extension with which a home keeps files that are in the way"""

    def __post_init__(self) -> None:
        words = [self.id, self.who, *(word for word in (self.specialisation, self.backup) if word)]
        if wrong := [word for word in words if not _SAFE.fullmatch(word)]:
            raise FleetError(f"{wrong[0]!r} cannot name a deployment, an operator, a specialisation or an extension")
        if not is_store_path(self.system):
            raise FleetError(f"{self.system!r} is not a store path")

    @property
    def begin(self) -> tuple[str, str]:
        """Starts it, unless another one is under way, and says how it stands."""
        words = [self.id, self.who, self.goal, self.system, self.specialisation or ""]
        words += [str(self.deadline), str(self.confirm), str(self.generation or "")]
        words = [str(self.protocol), *words, "reboot" if self.reboot else "", "unchecked" if self.unchecked else ""]
        words += [word_of(self.revision)] if self.notes else []
        words += [self.backup or ""] if self.kind is Kind.HOME else []
        return self._sent("begin", words)

    @property
    def notes(self) -> bool:
        """Whether the machine's program notes revisions; the version before does not."""
        return self.protocol == PROTOCOL

    @property
    def note(self) -> tuple[str, str]:
        """Has it note the revision of what runs or boots there already; nothing is activated."""
        words = [str(PROTOCOL), self.id, self.who, self.system, self.specialisation or "", word_of(self.revision)]
        return self._sent("note", words)

    def _sent(self, verb: str, words: list[str]) -> tuple[str, str]:
        """With the program itself, where the machine does not have its own."""
        if self.gated:
            return f"{GATE} {verb} {' '.join(word or '-' for word in words)}", ""
        program, there = f"program-{self.id}", self.kind.directory
        put = f"umask 077; mkdir -p {there} && cd {there} && cat >{program}"
        full = f"echo protocol={PROTOCOL}; echo refused={there} is full, or cannot be written; rm -f {program}; exit 0"
        run = f"sh {program} {self.kind} {verb} {shlex.join(words)}"
        return f"{put} || {{ {full}; }}; {run}; rm -f {program}", _program()

    def look(self, known: Stage, wait: int = LOOK) -> str:
        """Says how it stands, as soon as that is not the `known` stage any more."""
        return self._run(f"look {self.id} {known} {wait}")

    @property
    def keep(self) -> str:
        return self._run(f"say {self.id} keep")

    def back(self, why: str) -> str:
        line = "".join(char if char.isprintable() else "?" for char in " ".join(why.split()))
        return self._run(f"say {self.id} back {line if self.gated else shlex.quote(line)}")

    def _run(self, words: str) -> str:
        if self.gated:
            return f"{GATE} {words}"
        program = f"{self.kind.directory}/{self.id}/program"
        return f"if [ -r {program} ]; then exec sh {program} {self.kind} {words}; else {_GONE}; fi"


def hold(system: str) -> str:
    """Keeps a system from the garbage collector, also one that is still on its way; `machine.sh` lets it go."""
    return f"mkdir -p {GC_ROOTS} && ln -sfn {system} {GC_ROOTS}/new"


def last(kind: Kind) -> str:
    """Says how the last deployment since the boot stands, whoever made it."""
    program = f"{kind.directory}/current/program"
    return f"if [ -r {program} ]; then sh {program} {kind} last; else {_GONE}; fi"


@cache
def _program() -> str:
    return "".join(part(name) for name in PARTS)


def part(name: str) -> str:
    """The text of one part of the program."""
    return Path(__file__).with_name(name).read_text()


def parse(text: str) -> Standing:
    """What `machine.sh` printed. Unclear when that is something else, FleetError in a version that we do not speak."""
    values: dict[str, str] = {}
    lists: dict[str, list[str]] = {"log": [], "in_the_way": [], "backed_up": []}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in lists:
            lists[key].append(value)
        elif equals and value:
            values.setdefault(key, value)
    try:
        stage = Stage.REFUSED if "refused" in values else Stage(values["state"])
    except (KeyError, ValueError):
        raise Unclear(f"the machine did not say how its deployment stands, but {text[:200]!r}") from None
    if "refused" in values:  # also by what stands before the program, which says no version
        protocol = _spoken(values.get("protocol", str(PROTOCOL)))
        return Standing(stage, why=values["refused"], held=values.get("held"), protocol=protocol)
    protocol = _spoken(values.get("protocol", "1"))  # the first one did not say
    texts = {name for name, kind in Standing.__annotations__.items() if kind == str | None}
    known: dict[str, Any] = {name: values.get(name) for name in texts - {"revision", "configuration_revision"}}
    known |= {name: tuple(lines) for name, lines in lists.items()}
    left = values.get("left")
    return Standing(
        stage,
        **known,
        protocol=protocol,
        left=int(left) if left and re.fullmatch(r"-?[0-9]{1,9}", left) else None,
        configuration_revision=revision_of(values.get("version", "")),
        revision=of_running(values.get("current"), values.get("noted"), values.get("version", "")),
    )


def _spoken(version: str) -> int:
    """FleetError unless it is ours, or the one before."""
    if version in (str(PROTOCOL), str(PROTOCOL - 1)):
        return int(version)
    ours = f"this nixherd {PROTOCOL} and {PROTOCOL - 1}"
    remedy = (
        "update its modules first, by `nixos-rebuild switch --flake FLEET#HOST` on its console, or with the nixherd "
        "that it was deployed by"
    )
    if version.isdecimal() and int(version) > PROTOCOL:
        remedy = "update nixherd here"
    raise FleetError(f"the machine's program speaks version {version[:20]} of the protocol, {ours}: {remedy}")
