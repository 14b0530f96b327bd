"""What the fleet's configurations come to: evaluated once, all together, built, and searched for what nobody wants.

`builds` proves that each toplevel, home and disko script is built, whatever the flake has among its `checks`; `lockout`
and `closures` judge the same evaluation; `flake_check` is Nix's own judgement.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

from nixherd.base.errors import DeadlineExceeded, FleetError, ProcessFailed
from nixherd.base.process import Completed, run
from nixherd.fleet import lockout as locks
from nixherd.fleet.models import DEFINITIONS, FLAKE, HOSTS, Fleet
from nixherd.gate import sources
from nixherd.gate.results import Found, Look, Missing, Unknown, judged
from nixherd.nix import commands as nix
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.edit import CannotEdit, NixText
from nixherd.nix.errors import explanations, is_circumstance, last_error
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.kinds import Output
from nixherd.nix.log import warnings
from nixherd.nix.places import Place

_SYSTEMS, _HOMES = Output.SYSTEM, Output.HOME

Answers = Mapping[str, Evaluated | FleetError]


def evaluated(fleet: Fleet, evaluator: Evaluator) -> Answers:
    """What each host comes to, or why it does not evaluate; machines and homes side by side, once per run."""
    hosts = tuple(sorted(fleet.hosts))

    def one(host_id: str) -> Evaluated | FleetError:
        try:
            return evaluator.evaluate(hosts, host_id)
        except FleetError as error:
            return error

    kinds = {fleet.hosts[host_id].attribute.output: host_id for host_id in hosts}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, kinds.values()))
    return {host_id: one(host_id) for host_id in hosts}


def configuration(fleet: Fleet, host_id: str) -> str:
    return str(fleet.hosts[host_id].attribute)


def file_of(fleet: Fleet) -> Callable[[str], str | None]:
    """The file of a configuration that is named as the flake has it, below the fleet's directory."""
    hosts = {str(host.attribute): host for host in fleet.hosts.values()}

    def find(attribute: str) -> str | None:
        kind, _, rest = attribute.partition(".")
        host = hosts.get(attribute) or hosts.get(f"{kind}.{rest.partition('.')[0]}")
        if host is None:
            return None
        files = host.configuration_file if kind == _SYSTEMS else host.home_file
        path = PurePath(files or (FLAKE if host.configuration else HOSTS))
        root = fleet.path
        return str(path.relative_to(root)) if path.is_relative_to(root) else None

    return find


def builds(fleet: Fleet, builder: Builder) -> Look:
    """What does not evaluate, and what does not build; those that fail alike are one finding.

    That is of all configurations that the flake has: hosts.nix may not name one, and `nix flake check` says nothing of
    homes, nor of a system that is only thrown when it is looked into.
    """
    evaluator = builder.evaluator
    answers = {configuration(fleet, host_id): config for host_id, config in evaluated(fleet, evaluator).items()}
    answers |= _others(evaluator, answers)
    alike = partial(_alike, fleet, evaluator.flake)
    found = [*alike({name: str(why) for name, why in answers.items() if isinstance(why, FleetError)})]
    good = {name: config for name, config in answers.items() if isinstance(config, Evaluated)}
    derivations = {name: config.derivations for name, config in good.items()}
    broken: dict[str, str] = {}
    for name, config in good.items():
        try:
            builder.realise(derivations, name)
        except FleetError as error:
            broken[name] = str(error)
            continue
        if gone := [path for path in _outputs(config) if not os.path.lexists(path)]:
            broken[name] = f"{gone[0]} is not there, although Nix says that it is built; see to its store"
    found += alike(broken, build=True)
    built = [name for name in good if name not in broken]
    homes = sum(name.startswith(_HOMES) for name in built)
    scripts = sum(good[name].disko_script is not None for name in built)
    counts = {"system": len(built) - homes, "home": homes, "disko script": scripts}
    note = ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in counts.items()) + " built"
    return judged(found, note)


def _others(evaluator: Evaluator, known: Collection[str]) -> dict[str, Evaluated | FleetError]:
    """What the flake's configurations come to that are no hosts of the fleet, each by itself where one fails."""
    found: dict[str, Evaluated | FleetError] = {}
    for kind in (_SYSTEMS, _HOMES):
        try:
            names = nix.parse_names(evaluator.ask(nix.names(evaluator.flake, kind)))
        except FleetError as error:
            if f"it has no {kind};" not in str(error) and not any(each.startswith(f"{kind}.") for each in known):
                found[kind] = error  # else `known` tells of it
            continue
        left = [name for name in names if f"{kind}.{name}" not in known]
        if left:
            found |= {f"{kind}.{name}": config for name, config in _described(evaluator, kind, left).items()}
    return found


def _described(evaluator: Evaluator, kind: Output, names: Sequence[str]) -> dict[str, Evaluated | FleetError]:
    try:
        answer = evaluator.ask(nix.describe_built(evaluator.flake, names, kind))
        configs = nix.parse_description(answer)
    except FleetError as error:
        if len(names) == 1:
            return {names[0]: error}
        return {name: config for each in names for name, config in _described(evaluator, kind, [each]).items()}
    gone = f"{evaluator.flake}: it has no {kind}."
    return {name: config or FleetError(f"{gone}{name} any more") for name, config in configs.items()}


def _outputs(config: Evaluated) -> list[str]:
    return [path for path in (config.toplevel, config.disko_script) if path]


def _alike(fleet: Fleet, flake: str, errors: Mapping[str, str], *, build: bool = False) -> Iterator[Found]:
    together: dict[str, list[str]] = defaultdict(list)
    for name, why in errors.items():
        together[why.removeprefix(f"{name.partition('.')[2]}: ")].append(name)
    for why, alike in together.items():
        names = ", ".join(alike)
        file = file_of(fleet)(alike[0]) if len(alike) == 1 else None
        whole = why.removeprefix(f"{flake}: ").removeprefix(f"{fleet.path}: ")
        if build:
            remedy = "" if is_circumstance(whole) else "correct what its builder complains of"
            yield Found(whole, file or "flake.nix", attribute=names, remedy=remedy)
            continue
        found = Found.of_text(whole, fleet.path, names)
        if found.file is None:
            what = found.what.removeprefix("Nix cannot evaluate the fleet: ")
            found = Found(what, file or "flake.nix", attribute=names, remedy=found.remedy or "correct it there")
        yield found


def lockout(fleet: Fleet, evaluator: Evaluator) -> Look:
    """Machines that nobody could become root on after an installation."""
    answers = evaluated(fleet, evaluator)
    found = locks.findings(fleet, answers)
    machines = [host_id for host_id in answers if fleet.hosts[host_id].is_nixos]
    configs = {each: config for each in machines if isinstance(config := answers[each], Evaluated)}
    untold = [each for each, config in configs.items() if config.root_access is None]
    unsure = [each for each in machines if each not in configs]
    unknown = [f"{', '.join(unsure)}: not evaluated (see builds)"] if unsure else []
    unknown += [f"{', '.join(untold)}: no users are declared"] if untold else []
    judged = len(machines) - len(unsure) - len(untold)
    return Look([Found.of_text(each) for each in found], f"{judged} machines", "; ".join(unknown))


def closures(fleet: Fleet, evaluator: Evaluator) -> Look:
    """Configurations whose closure holds the fleet's tree or its commit, so that every commit changes them."""
    answers, found, unsure = evaluated(fleet, evaluator), [], []
    hosts, warnings_of = tuple(sorted(answers)), sources.find(fleet, evaluator)
    for host_id, config in answers.items():
        if not isinstance(config, Evaluated):
            unsure.append(host_id)
            continue
        found += [Found.of_text(each) for each in warnings_of(hosts, host_id)]
    unknown = f"{', '.join(unsure)}: not evaluated (see builds)" if unsure else ""
    return Look(found, f"{len(answers) - len(unsure)} closures", unknown)


def with_lines(root: Path, findings: list[Found]) -> list[Found]:
    """The same, with the lines of attributes in hosts.nix and vms/definitions.nix."""
    texts: dict[str, NixText] = {}
    for file in (HOSTS, DEFINITIONS):
        with suppress(OSError):
            texts[file] = NixText(file, (root / file).read_bytes())
    return [_with_line(each, texts) for each in findings]


def _with_line(found: Found, texts: Mapping[str, NixText]) -> Found:
    text = texts.get(found.file or "")
    if text is None or found.line is not None or not found.attribute:
        return found
    path = tuple(found.attribute.partition("[")[0].partition(" ")[0].split("."))
    try:
        line = text.line_of(path)
    except CannotEdit:
        return found
    return replace(found, line=line)


_OMITTED = re.compile(r"omitted these incompatible systems: ([\w-]+(?:, [\w-]+)*)")
_LOCK_CHANGES = "requires lock file changes"
# What a trace says of whose evaluation it is.
_CHECKED = re.compile(r"while checking (?:the NixOS configuration|the derivation|flake output) '([^']+)'")


def flake_check(flake: str, root: Path, deadline: float, file_of: Callable[[str], str | None] = lambda _: None) -> Look:
    """What does not evaluate or build. `file_of` is a configuration's file, for what names none. Missing, Unknown."""
    try:
        done = run(nix.flake_check(flake), timeout=deadline, check=False)
    except DeadlineExceeded:
        raise Unknown(f"nix flake check was not done after {deadline:g} s, and was stopped; see --deadline") from None
    except ProcessFailed as error:
        if error.status == 127:
            raise Missing(f"nix is not on PATH; install it (https://nixos.org/download), {flake} is a flake") from error
        raise Unknown(str(error)) from error
    omitted = _OMITTED.search(done.stderr)
    note = f"evaluated, its checks built{f', not those for {omitted[1]}' if omitted else ''}"
    warned = dict.fromkeys(" ".join(text.split()) for text, _ in warnings(done.stderr))
    return judged(parse_flake_check(done, root, file_of), "; warning: ".join([note, *warned]))


def parse_flake_check(
    done: Completed, root: Path, file_of: Callable[[str], str | None] = lambda _: None
) -> list[Found]:
    """What it logged. Unknown where it failed without a word of why."""
    if done.status == 0:
        return []
    if done.status < 0:
        raise Unknown(f"nix flake check was killed by signal {-done.status}")
    found = list(_complaints(done.stderr, root, file_of))
    if not found:
        raise Unknown(f"nix flake check ended with status {done.status}: {last_error(done.stderr) or 'without a word'}")
    return list(dict.fromkeys(found))


def _complaints(stderr: str, root: Path, file_of: Callable[[str], str | None]) -> Iterator[Found]:
    for explained, trace in explanations(stderr, root):
        if _LOCK_CHANGES in explained.what:
            yield Found("names not all inputs of flake.nix as they are now", "flake.lock", remedy=explained.remedy)
            continue
        attribute = next(reversed(_CHECKED.findall(trace)), "")
        place = explained.place or Place(file_of(attribute) or "flake.nix")
        remedy = explained.remedy or "correct it there"
        yield Found(explained.what, place.file, place.line, place.column, attribute=attribute, remedy=remedy)
