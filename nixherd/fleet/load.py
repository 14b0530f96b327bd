"""load_fleet(): the one way to a fleet: its own files, evaluated once in a closed world, and its flake.

The hosts are those of hosts.nix, or else the configurations that the flake has (`nixherd.fleet.from_flake`).

They see the files of their repository, and no network, environment, clock, other program, store or path elsewhere.
Three things see to it: Nix's restrict-eval with what `nixherd.fleet.world` found as all that there is, a store that
holds nothing and takes nothing, and `load.nix`, which makes errors of what Nix would pass over. An edit of these files
is judged by what it changes in their evaluation (`require_exactly`).
"""

import errno
import json
import os
import re
import secrets
import shlex
import signal
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from nixherd.base.errors import DeadlineExceeded, Finding, FleetError, FleetInvalid, ProcessFailed
from nixherd.base.files import expanded
from nixherd.base.process import Limits, run
from nixherd.fleet import from_flake, from_hosts_file, other_shape
from nixherd.fleet.beside import Beside
from nixherd.fleet.models import DEFINITIONS, FLAKE, HOSTS, NIXHERD, Fleet
from nixherd.fleet.nix_values import NixOther, NixPath
from nixherd.fleet.outputs import Outputs, outputs_of
from nixherd.fleet.parse import fleet_of, with_machines
from nixherd.fleet.validate import find
from nixherd.fleet.world import World, is_text, look, view_of
from nixherd.nix.commands import nix_string
from nixherd.nix.errors import cause, explain
from nixherd.nix.kinds import Output
from nixherd.nix.log import LOG_FORMAT
from nixherd.nix.syntax import parse, walk

_LOADER = Path(__file__).with_name("load.nix")
_TIMEOUT = 60.0
_LIMITS = Limits(memory=2 << 30, output=64 << 20)
_TOO_MUCH = (-signal.SIGABRT, -signal.SIGKILL, -signal.SIGSEGV)
_FILES = f"{HOSTS}, {NIXHERD} and {DEFINITIONS}"

# The operator's own nix.conf goes on to hold, for syntax that is experimental; but not in what would open the world.
_CLOSED = {
    "restrict-eval": "true",
    "pure-eval": "false",  # which sees no file outside of the store
    "nix-path": "",
    "allowed-uris": "",
    "allow-import-from-derivation": "false",
    "allow-unsafe-native-code-during-evaluation": "false",
}
# What Nix makes of `~` is nobody's home.
_HOME = "/homeless-nixherd"
_OF_XDG = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}

_REFUSAL = re.compile(r"evaluation aborted with the following error message: '(builtins\.\w+: .*)'", re.DOTALL)
_NO_UTF8 = re.compile(r"\[json\.exception[^]]*\].* UTF-8 ")
_FORBIDDEN = re.compile(r"access to (?:absolute|canonical) path '([^']*)' is forbidden in restricted mode")

Leaf = tuple[str, ...]
ABSENT: Any = object()
"""what an attribute is intended to be that is to be there no more"""


class Written(NamedTuple):
    """What the files of a fleet say, unjudged; None for one that does not exist, or is not the fleet's."""

    hosts: Any = None
    beside: Any = None
    definitions: Any = None


def evaluate(world: World, directory: Path) -> Written:
    """What the files of a fleet say.

    Paths below the fleet's directory are given as below `directory`, its name for the operator. Raises FleetInvalid
    with one line, ProcessFailed without `nix`, DeadlineExceeded when it does not come to an end.
    """
    marker = f"path {secrets.token_hex(16)}"  # which no file can know
    try:
        done = run(_argv(world), env=_environment(), input=_expression(world, marker), timeout=_TIMEOUT, limits=_LIMITS)
    except DeadlineExceeded:
        raise DeadlineExceeded(f"{directory}: {_FILES} are not evaluated after {_TIMEOUT:g} s; simplify them") from None
    except ProcessFailed as failure:
        if isinstance(failure.__cause__, OSError) and failure.__cause__.errno == errno.E2BIG:
            raise FleetInvalid([_too_many(world, directory)]) from None
        if failure.status > 0 and not failure.stderr:
            raise
        raise FleetInvalid([_explained(failure, world, directory)]) from None
    if _HOME in done.stdout:
        raise FleetInvalid([_home_is_used(world, directory)])
    try:
        parsed = json.loads(done.stdout, object_hook=partial(_path_or_set, marker, world.fleet, directory))
    except RecursionError:
        raise FleetInvalid([f"{directory}: {_FILES} hold values too deep in one another; flatten them"]) from None
    return Written(**parsed)


def _argv(world: World) -> list[str]:
    argv = ["nix", "--extra-experimental-features", "nix-command", "eval", "--json", *LOG_FORMAT, "--file", "-"]
    argv += ["--read-only", "--store", "dummy://"]
    for name, value in _CLOSED.items():
        argv += ["--option", name, value]
    # Nix takes what is before the first = for a name.
    for each in reversed(world.all):
        argv += [word for path in each.allowed for word in ("-I", f"fleet={path}")]
    return argv


def _environment() -> dict[str, str]:
    try:
        home = str(Path.home())
    except RuntimeError:
        home = _HOME
    usual = {name: os.environ.get(name) or f"{home}/{below}" for name, below in _OF_XDG.items()}
    return {**usual, "HOME": _HOME, "NIX_PATH": ""}


def _expression(world: World, marker: str) -> str:
    # Of names that are no UTF-8 restrict-eval alone knows.
    told = {
        "fleet": world.fleet,
        "marker": marker,
        "roots": [each.root for each in world.all],
        "closed": {path: why for each in world.all for path, why in each.closed.items() if is_text(path + why)},
        "links": {path: to for each in world.all for path, to in each.links.items() if is_text(path + to)},
        "modules": [path for each in world.all for path in each.modules if is_text(path)],
    }
    return f"({_LOADER.read_text()})\n(builtins.fromJSON {nix_string(json.dumps(told))})\n"


def _path_or_set(marker: str, fleet: str, directory: Path, value: dict[str, Any]) -> Any:
    if marker not in value:
        return value
    path = value[marker]
    if not path.startswith("/"):
        return NixOther(path)
    path = f"{directory}{path[len(fleet) :]}" if path == fleet or path.startswith(f"{fleet}/") else path
    return NixPath(path, exists=os.path.lexists(path))


# Errors


def _explained(failure: ProcessFailed, world: World, directory: Path) -> str:
    fleet, root = Path(world.fleet), Path(world.root)
    where, what = cause(failure.stderr, fleet, root)
    if _HOME in what:
        return _home_is_used(world, directory)
    if refusal := _REFUSAL.fullmatch(what):
        return f"{where or directory}: {refusal[1]}"
    if failure.status in _TOO_MUCH or "out of memory" in what:
        most = f"{_LIMITS.memory >> 30} GiB of memory or {_LIMITS.output >> 20} MiB of output"
        return f"{directory}: {_FILES} take more than {most} to evaluate; make them smaller"
    if _NO_UTF8.search(what):
        return f"{where or directory}: {_FILES} hold a string that is not UTF-8; save them and what they read as UTF-8"
    if forbidden := _FORBIDDEN.search(what):
        return f"{where or directory}: {_why_forbidden(world, forbidden[1])}"
    return explain(failure.stderr, fleet, root)


def _why_forbidden(world: World, path: str) -> str:
    path = str(Path(world.fleet, path))
    if why := next((why for each in world.all if (why := each.why_closed(path))), None):
        return why
    if any(path.startswith(f"{each.root}/") for each in world.all):
        return f"{path} does not exist; create it, or correct the path"
    return f"{path} lies outside of the fleet's repository; move it to where it is seen, below {world.root}"


def _too_many(world: World, directory: Path) -> str:
    """Where most of the paths are that had to be named one by one, because something beside them is closed."""
    [(place, number)] = Counter(os.path.dirname(path) for each in world.all for path in each.allowed).most_common(1)  # noqa: PTH120
    closed = min(path for each in world.all for path in each.closed if Path(place) in Path(path).parents)
    return f"{directory}: {place} holds {number} files beside {closed}, too many to tell Nix one by one; move that one"


def _home_is_used(world: World, directory: Path) -> str:
    where = _home_path(world) or directory
    return f"{where}: ~ is the home of whoever evaluates this; write a path of the fleet's repository"


def _home_path(world: World) -> str | None:
    """Where one of the files has a path that begins with ~, of which Nix gives no place."""
    for path in world.modules:
        try:
            root = parse(Path(path).read_bytes())
        except OSError:
            continue
        for node in walk(root):
            if node.type == "hpath_expression":
                line, column = node.start_point
                return f"{os.path.relpath(path, world.fleet)}:{line + 1}:{column + 1}"
    return None


def require_exactly(
    directory: Path,
    edited: Mapping[str, bytes],
    intended: Mapping[Leaf, Any],
    scratch: Path,
    gone: Collection[Leaf] = (),
) -> World:
    """FleetError unless the edited files, evaluated, differ from those of the directory in exactly what is intended.

    `edited` maps paths below the directory to contents, `intended` attributes, as ("hosts.nix", "dev", "publicKey"), to
    their new values (ABSENT: it goes); those that are `gone` are there no more, with all that is in them. A view of
    the fleet with the edited files in it is made below `scratch`, and returned.
    """
    world = look(directory)
    below = world.fleet[len(world.root) :].lstrip("/")
    view = scratch / "view"
    _mirror(Path(world.root), view, {str(Path(below, path)): content for path, content in edited.items()}, world.closed)
    # Nix follows links: what an edited file takes from beside it has paths of the directory itself.
    places = (str(view / below), str(directory), str(view), os.path.realpath(view), world.root)
    expected = {**_leaves_of(world, directory, places), **intended}
    seen = view_of(view, world)
    after = _leaves_of(seen, view / below, places)
    for each in gone:
        expected = {leaf: value for leaf, value in expected.items() if leaf[: len(each)] != each}
        if not any(leaf[: len(each) - 1] == each[:-1] for leaf in expected) and after.get(each[:-1]) == {}:
            expected[each[:-1]] = {}  # the set that it was the last one of
    for leaf in sorted({*expected, *after}):
        is_, should_be = after.get(leaf, ABSENT), expected.get(leaf, ABSENT)
        if is_ != should_be:
            what = f"the edit would change {'.'.join(leaf[1:])} to {_shown(is_)}, not to {_shown(should_be)}"
            raise FleetError(f"{leaf[0]}: {what}; edit it by hand")
    return seen


def _leaves_of(world: World, directory: Path, places: Sequence[str]) -> dict[Leaf, Any]:
    written = zip((HOSTS, NIXHERD, DEFINITIONS), evaluate(world, directory), strict=True)
    return dict(leaf for name, values in written for leaf in _leaves((name,), values, places))


def _leaves(path: Leaf, value: Any, places: Sequence[str]) -> list[tuple[Leaf, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, inner in value.items() for leaf in _leaves((*path, name), inner, places)]
    return [(path, _plain(value, places))]


def _plain(value: Any, places: Sequence[str]) -> Any:
    """Paths as they are below the fleet's directory, and apart from strings."""
    if isinstance(value, NixPath):
        inside = next((place for place in places if value.startswith(f"{place}/")), "")
        return ("path", value[len(inside) :])
    if isinstance(value, list):
        return [_plain(each, places) for each in value]
    return value


def _shown(value: Any) -> str:
    return "nothing" if value is ABSENT else repr(value)


def _mirror(directory: Path, view: Path, edited: dict[str, bytes], closed: Container[str]) -> None:
    """The directory by links, the edited files in their places; without what nobody sees."""
    view.mkdir(parents=True)
    here = {path: content for path, content in edited.items() if "/" not in path}
    below = {path.partition("/")[0] for path in edited if "/" in path}
    if directory.is_dir():  # a new one is in the view alone
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name not in here and entry.name not in below and entry.path not in closed:
                    (view / entry.name).symlink_to(directory / entry.name)
    for name, content in here.items():
        (view / name).write_bytes(content)
    for name in below:
        inner = {path.partition("/")[2]: each for path, each in edited.items() if path.startswith(f"{name}/")}
        _mirror(directory / name, view / name, inner, closed)


def require_directory(root: Path) -> None:
    """FleetInvalid unless the fleet's directory exists."""
    if not root.is_dir():
        raise FleetInvalid([f"{root}: no such directory; FLEET names the directory of the fleet's flake"])


def load_fleet(path: str | os.PathLike[str], world: World | None = None) -> Fleet:
    """The fleet that a flake's directory describes, with the warnings that it gives rise to.

    `world` is what is there, where somebody has looked.

    Raises FleetInvalid with every finding when the files say what cannot be (or are not there, or are no Nix),
    Refused when they are somebody else's, ProcessFailed without `nix`, DeadlineExceeded when it does
    not answer.
    """
    directory = expanded(path).absolute()
    require_directory(directory)
    if not any((directory / name).is_file() for name in (HOSTS, FLAKE)):
        raise FleetInvalid([_no_fleet(directory)])
    try:
        world = world or look(directory)
    except OSError as error:
        raise FleetInvalid([f"{directory}: cannot be read: {error.strerror}; see to its rights"]) from error
    is_written = any(os.path.lexists(directory / name) for name in (HOSTS, NIXHERD, DEFINITIONS))
    written = evaluate(world, directory) if is_written else Written()
    findings: list[Finding] = []
    beside = Beside.parse(written.beside, findings)
    known = _by_flake if written.hosts is None else _by_hosts_file
    return known(written, beside, findings, directory, world)


def _no_fleet(directory: Path) -> str:
    what, remedy = "", "FLEET names the directory of the fleet's flake"
    others = {"hive.nix": "a hive", "default.nix": "an expression", "configuration.nix": "a configuration"}
    if below := flakes_below(directory):
        what = f"; there is one in {', '.join(map(str, below))}"
        remedy = f"name its directory: FLEET={shlex.quote(str(directory / below[0]))}"
    elif name := next((name for name in others if (directory / name).is_file()), None):
        what = f"; {name} is {others[name]} without a flake, which is not read"
        remedy = f"write a flake around it, whose {Output.SYSTEM} are the hosts"
    return f"{directory}: it has neither {FLAKE} nor {HOSTS}{what}; {remedy}"


def flakes_below(directory: Path) -> list[Path]:
    """Return where a directory has flakes in it, from there, at most two steps down."""
    found = (
        path.parent.relative_to(directory) for steps in ("*", "*/*") for path in directory.glob(f"{steps}/{FLAKE}")
    )
    return sorted(place for place in found if not any(part.startswith(".") for part in place.parts))


def _by_hosts_file(written: Written, beside: Beside, findings: list[Finding], directory: Path, world: World) -> Fleet:
    entries = from_hosts_file.entries_of(written.hosts, beside, findings)
    outputs = partial(_outputs, directory, world)
    configurations = from_hosts_file.configurations_of(entries, outputs)
    found = find(entries, written.definitions, findings)
    if written.beside is None:
        errors = [finding for finding in found if not finding.is_warning]
        if errors and (why := other_shape.why(written.hosts, errors, outputs)):
            raise FleetInvalid([why])
        if unread := other_shape.unread(written.hosts):
            found.append(unread)
    found = _sound(found)
    values = {name: entry.values for name, entry in entries.items()}
    return fleet_of(directory, values, written.definitions or {}, found, configurations)


def _by_flake(written: Written, beside: Beside, findings: list[Finding], directory: Path, world: World) -> Fleet:
    outputs = _outputs(directory, world)
    hosts = from_flake.listed(outputs)
    if not hosts.configurations:
        raise FleetInvalid([_no_hosts(directory, hosts.skipped)])
    bare = from_flake.entries_of(outputs, beside, hosts, findings)
    entries = {name: replace(entry, values={**beside.defaults, **entry.values}) for name, entry in bare.items()}
    homes = [name for name, each in hosts.configurations.items() if each.output is Output.HOME]
    found = _sound(find(entries, written.definitions, findings, homes, is_whole=False))
    values = {name: entry.values for name, entry in entries.items()}
    fleet = fleet_of(directory, values, written.definitions or {}, found, hosts.configurations, from_flake.UNREAD)
    return replace(
        fleet,
        hosts=with_machines(fleet.hosts),
        skipped=MappingProxyType(hosts.skipped),
        unkept=hosts.unkept,
        entries=MappingProxyType({name: entry.values for name, entry in bare.items()}),
        defaults=MappingProxyType(beside.defaults),
        file=NIXHERD,
    )


def _sound(findings: list[Finding]) -> list[Finding]:
    """Warnings alone. FleetInvalid where one of them is an error."""
    if not all(finding.is_warning for finding in findings):
        raise FleetInvalid(findings)
    return findings


def _outputs(directory: Path, world: World) -> Outputs:
    return outputs_of(directory, world) if (directory / FLAKE).is_file() else Outputs()


def _no_hosts(directory: Path, skipped: Mapping[str, str]) -> str:
    name, why = next(iter(skipped.items()), ("", ""))
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    hint = f"; {name} is not one of ours: {why}{more}" if name else "; add one, or write hosts.nix"
    return f"{directory}/{FLAKE}: it has neither {Output.SYSTEM} nor {Output.HOME}{hint}"
