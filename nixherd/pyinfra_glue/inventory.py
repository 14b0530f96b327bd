"""inventory.py's one call: the fleet's files become pyinfra hosts, or clear lines and status 1."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.base.controller import require_linux
from nixherd.base.errors import FAILURES, Exit, Usage, exit_of
from nixherd.base.files import expanded, fleet_root
from nixherd.base.run import Run
from nixherd.base.terminal import keep_streams, require_text, say, say_error, worded
from nixherd.deploy.commit_policy import DATA_KEYS, Gate, required_by_hosts
from nixherd.deploy.history import new_directory
from nixherd.deploy.hooks import Hooks
from nixherd.deploy.options import Options
from nixherd.deploy.report import Journal
from nixherd.fleet.completing import completed
from nixherd.fleet.groups import (
    HOST_DATA,
    check_data,
    check_group_data,
    check_selection,
    for_all,
    groups_of,
    names_in,
    said_for_all,
    separate,
)
from nixherd.fleet.models import Fleet
from nixherd.fleet.place import OF_THE_TREE, PROJECT, fleet_around, personal_data
from nixherd.fleet.revisions import Tree
from nixherd.nix.evaluator import Evaluator, Source
from nixherd.nix.flakes import Flake, lock_flake
from nixherd.proxmox.hypervisor import Definitions, Hypervisor
from nixherd.pyinfra_glue import cli
from nixherd.pyinfra_glue.context import Context, RollCall
from nixherd.pyinfra_glue.deploy_file import DeployFile, declared, require_order, some_are_the_operators

Entry = str | tuple[str, dict[str, Any]]

# Operations and facts that ask the hypervisor alone, or nobody.
_OF_THE_API = ("operations.gate.", "operations.proxmox.", "facts.proxmox.")
# Those that have nothing to do where the installed system does not answer.
_LOOK = "operations.machines.look"
_OF_MACHINES = (
    "operations.home_manager.",
    "operations.machines.",
    *(f"operations.nixos.{name}" for name in ("activated", "copied", "gc", "profile", "rollback")),
)
_LISTING = "debug-inventory"
# pyinfra's own ideas of order and failure, and what a deployment has instead.
_NOT_IN_ROLLOUTS = {
    "serial": "a deployment goes in waves: give hosts `wave`, `canary` or `role`",
    "no_wait": "a wave begins when the one before is proven: give hosts `wave`",
    "fail_percent": "say max_fail=10%, which counts machines",
}
_READ = "nixherd.inventory"  # in the meta of pyinfra's invocation: what was read in it
_DEFAULT_TOKEN_FILE = "~/.config/nixherd/proxmox-token"


def inventory_beside(file: str, only: str = "*") -> dict[str, list[Entry]]:
    """The groups of an inventory file: FLEET's hosts, or those of the fleet that is around it or in `fleet/` there.

    Every host is `@fleet/ID`. Its data are `context` (shared by the whole run), `host_id`, `must_answer`: true for
    `exec`, `fact` and deployments, so that a machine which is not there is a failure, unless this run makes it first,
    and `api_only`: true where the hypervisor alone is asked, so that no machine needs to answer. `may_install`: true
    where a machine is installed or enrolled, so that the hypervisor says where its guests are, and vouches for them.
    `only_looks`: true where machines are only looked at. `steps`: what the deploy files that run declare
    (`nixherd.pyinfra_glue.deploy_file`).

    `only` selects hosts beside what --limit does: a group, or a pattern.

    Whatever is wrong with the fleet or with what was asked of it ends the program here, before anything is
    connected.
    """
    with or_end("reading the fleet", file) as (context, options, here):
        words = tuple(options.get("operations") or ())
        by_file = declared(words)
        files = [each for declarations in by_file.values() for each in declarations]
        problem = _out_of_order(options)
        _check_deploys(by_file, problem)
        _check_data(here, options)
        reference = data_said(options, "flake")
        flake = lock_flake(reference) if reference else None
        place = flake.path if flake else fleet_directory(here)
        from_flake = any(each.from_flake for each in files)
        gate = _gate(here, options, place)
        verified = gate.verify() if gate and from_flake else None  # before anything of it is evaluated
        definitions = Definitions.load(place)
        if gate is None and required_by_hosts(definitions.fleet):
            gate = _gate(here, options, place, by_hosts=True)
            verified = gate.verify() if gate and from_flake else None
        # other deploys may change the files that they then look at
        only_rollouts = all(each.rollout for each in files)
        fleet = verified.fleet(place) if verified and only_rollouts else definitions.fleet
        for warning in fleet.warnings:
            say(warning, err=True)
        groups = groups_of(fleet)
        selected = _selected(groups, options) & check_selection([only], groups, "@fleet")
        if not selected:
            raise Usage("no host is left to work on; the fleet, --limit and --exclude leave none")
        _check_deployments(here, options, fleet, selected)
        if any(each.rollout for each in files):
            Hooks.of_operator()  # a wrong one is said before anything is evaluated
        token_file = expanded(token_file_of(here, options))
        run = Run(fleet.id)
        if context:
            context.call_on_close(run.close)
        evaluator = Evaluator(fleet, run, _source(fleet, flake, gate))
        if verified:
            evaluator.source = verified
        is_rollout = bool(context) and any(each.rollout for each in files)
        waits = is_rollout and from_flake and only_rollouts
        asks = _asked(words, files)
        if words and words[0] != _LISTING and not asks["api_only"]:
            fleet = completed(fleet, selected, evaluator, whole=waits)
        _check_deployments(here, options, fleet, selected)
        shared = Context.of(
            *(evaluator, Hypervisor(fleet, token_file, definitions, may_ask=_may_ask(options)), flake),
            must_be_signed=gate is not None,
            roll_call=RollCall(selected, evaluator.ahead) if waits else None,
        )
        if context:
            cli.put_right(context, shared)
            # a plan leaves none of its own
            if data_said(options, "journal") or (is_rollout and not options.get("dry")):
                run.journal = _journal(fleet, selected, options, files)
    inventory: dict[str, list[Entry]] = {name: [f"@fleet/{id}" for id in ids] for name, ids in groups.items()}
    data = {
        **for_all([personal_data()]),
        "context": shared,
        **asks,
        **({"without_order": problem} if problem else {}),
    }
    inventory["all"] = [(f"@fleet/{id}", {**data, "host_id": id}) for id in fleet.hosts]
    return inventory


def _source(fleet: Fleet, flake: Flake | None, gate: Gate | None) -> Callable[[], Source]:
    """Which flake is evaluated: as it was named, as it was verified, or as the tree is."""
    if flake:
        return lambda: flake
    return gate.verify if gate else partial(Tree, fleet.path)


def named_by_connector(
    kind: str, name: str | None, read: Callable[[str, str], dict[str, list[Entry]]]
) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Yield what `@fleet` or `@fleet/PATTERN` stands for: hosts by name, data and groups.

    In an inventory file that called `read`, and outside of pyinfra's command line, it is the host of that name alone.
    Otherwise the fleet around the current directory is read, once a run.
    """
    context = click.get_current_context(silent=True)
    known: dict[str, Any] = context.meta if context else {_READ: None}
    if _READ not in known:
        require_linux()
        known[_READ] = read(str(Path.cwd() / "inventory.py"), name or "*")
    if known[_READ] is None:
        yield str(name), {}, []
        return
    prefix = f"@{kind}/"
    ids = {
        group: [str(_name_of(each)).removeprefix(prefix) for each in each_of] for group, each_of in known[_READ].items()
    }
    try:
        chosen = check_selection([name], ids, f"@{kind}") if name else set(ids["all"])
    except Usage as error:
        say_error(error)
        raise SystemExit(int(Exit.USAGE)) from None
    for entry, data in known[_READ]["all"]:
        if (host_id := entry.removeprefix(prefix)) in chosen:
            yield host_id, {**data}, [group for group, members in ids.items() if host_id in members and group != "all"]


def _name_of(entry: Entry) -> str:
    return entry if isinstance(entry, str) else entry[0]


@contextmanager
def or_end(what: str, file: str) -> Iterator[tuple[click.Context | None, dict[str, Any], Path]]:
    """Give pyinfra's invocation, None outside of one, its options, and the directory of an inventory file.

    Whatever goes wrong meanwhile is said in its line and ends the program, before anything is connected.
    """
    context = click.get_current_context(silent=True)
    options: dict[str, Any] = context.params if context else {}
    try:
        if context:
            keep_streams()
            require_text(sys.argv[1:])
            context.meta.setdefault(_READ, None)
        yield context, options, Path(file).resolve().parent
    except FAILURES as error:
        failure = worded(error, f"{what} for pyinfra {' '.join(options.get('operations') or ())}")
        say_error(failure)
        raise SystemExit(int(exit_of(failure, changed=False))) from None


def fleet_directory(here: Path) -> Path:
    """FLEET's directory, or the fleet that is around the inventory; around us for the one that is installed."""
    is_installed = here == PROJECT.resolve()
    return fleet_root(os.environ.get("FLEET") or fleet_around(None if is_installed else here))


def _gate(here: Path, options: dict[str, Any], place: Path, *, by_hosts: bool = False) -> Gate | None:
    """What the fleet has to be signed by; None where neither the operator nor, with `by_hosts`, hosts.nix requires it.

    Usage for a flake that was named by a reference: it has no commits to look at.
    """
    options_set = {name: value for name in DATA_KEYS if (value := data_said(options, name)) is not None}
    standing = _group_data(here, options.get("group_data") or ())
    gate = Gate.of(place, options_set, standing, by_hosts=by_hosts, notes=not options.get("dry"))
    if gate and data_said(options, "flake"):
        raise Usage("flake=…: require_signed looks at the commits of a checkout; clone it, and deploy from there")
    if gate and any(Path(each).name == OF_THE_TREE for each in options.get("group_data") or ()):
        raise Usage(
            "require_signed: group_data in the fleet's directory is not what was signed; say it in hosts.nix, "
            f"nixherd.nix or {personal_data()}/all.py"
        )
    return gate


def _asked(words: Sequence[str], files: Sequence[DeployFile]) -> dict[str, Any]:
    """What the words on the command line ask of the machines."""
    first, *rest = [word for word in words if "=" not in word] or [""]
    named = [word.removeprefix("nixherd.") for word in (rest if first == "fact" else [first])]
    by_api = bool(named) and all(word.startswith(_OF_THE_API) for word in named)
    asks_machines = first in ("exec", "fact") or first.removeprefix("nixherd.").startswith(_OF_MACHINES)
    # a machine that this run makes before it deploys to it is not there when it begins
    begins = next((each for each in files if each.rollout or each.makes_machines), None)
    return {
        "must_answer": (asks_machines and not by_api) or bool(begins and begins.rollout),
        "api_only": by_api or (bool(files) and not any(each.asks_machines for each in files)),
        "only_looks": first.removeprefix("nixherd.") == _LOOK,
        "may_install": any(each.by_hypervisor for each in files),
        "makes_machines": any(each.makes_machines for each in files),
        "steps": [each.step for each in files],
    }


def _check_deploys(by_file: Mapping[str, Sequence[DeployFile]], problem: str | None) -> None:
    """Usage for what is not for hosts of a fleet, or is to run in an order that is not its own."""
    for file, declarations in by_file.items():
        for each in declarations:
            if each.for_nodes:
                raise Usage(
                    f"{each.step} is for a node of the hypervisor, and these are hosts of the fleet: "
                    f"pyinfra nodes.py {file} --limit NODE"
                )
            if each.rollout:
                require_order(problem)


def _out_of_order(options: Mapping[str, Any]) -> str | None:
    """The option that would break the order of a rollout or hide its end, and what to say instead; None for none."""
    wrong = (name for name in _NOT_IN_ROLLOUTS if options.get(name))
    return next((f"--{name.replace('_', '-')}: {_NOT_IN_ROLLOUTS[name]}" for name in wrong), None)


def _journal(fleet: Fleet, selected: set[str], options: dict[str, Any], files: Sequence[DeployFile]) -> Journal:
    """Where this deployment notes what it does: who begins one tells where, else in a directory of its own."""
    given = data_said(options, "journal")
    journal = Journal(Path(given) if given else new_directory())
    hosts, deploys = sorted(selected), list(options["operations"])
    dry = bool(options.get("dry"))
    steps = [each.step for each in files]
    journal.note("run", hosts=hosts, deploys=deploys, steps=steps, dry=dry, warnings=fleet.warnings)
    return journal


def _selected(groups: dict[str, list[str]], options: dict[str, Any]) -> set[str]:
    limit, exclude = (separate(options.get(name) or (), groups) for name in ("limit", "exclude"))
    limit = limit or ["*"]
    selected = check_selection(limit, groups, "--limit") if groups["all"] else set()
    return selected - check_selection(exclude, groups, "--exclude")


def _check_data(here: Path, options: dict[str, Any]) -> None:
    """Usage for data that nobody asks for; an operator's deploy file, which declares nothing, may ask for more."""
    others = some_are_the_operators(tuple(options.get("operations") or ()))
    check_data(parsed_data(options), HOST_DATA, others=others)
    for directory in _group_data(here, options.get("group_data") or ()):
        for file in sorted(directory.glob("*.py")):
            check_group_data(names_in(file), str(file))


def _check_deployments(here: Path, options: dict[str, Any], fleet: Fleet, host_ids: Iterable[str]) -> None:
    """Usage where one of these hosts is to be deployed to as cannot be meant: whether it would be changed or not."""
    values = {**for_all(_group_data(here, options.get("group_data") or ())), **parsed_data(options)}
    given = {name: value for name, value in values.items() if value is not None}
    builders = {name for host in fleet.hosts.values() for name in (host.id, host.ssh_alias) if name}
    for host_id in sorted(host_ids):
        merged = {**fleet.hosts[host_id].deployment, **given}
        key = Options.of(host_id, merged.get, builders).sign_with
        if key and not expanded(key).is_file():
            raise Usage(f"sign_with={key}: no such file; `nix key generate-secret --key-name NAME` makes a key")


def parsed_data(options: Mapping[str, Any]) -> dict[str, Any]:
    """What --data said, by name, as pyinfra takes it."""
    from pyinfra_cli.util import parse_cli_arg  # type: ignore[import-untyped]  # which patches on import

    pairs = [argument.partition("=") for argument in options.get("data") or ()]
    return {name: parse_cli_arg(value) for name, _, value in pairs}


def data_said(options: dict[str, Any], name: str) -> str | None:
    """What --data NAME=VALUE said, None where nobody said it; group data is loaded only after the inventory."""
    pairs = [argument.partition("=") for argument in options.get("data") or ()]
    return next((value for key, _, value in pairs if key == name), None)


def _may_ask(options: dict[str, Any]) -> bool:
    """Whether the hypervisor may be asked anything in this run."""
    return parsed_data(options).get("ask_hypervisor") is not False


def token_file_of(here: Path, options: dict[str, Any]) -> str:
    """`proxmox_token_file` as pyinfra would resolve it for all hosts."""
    if given := data_said(options, "proxmox_token_file"):
        return given
    files = said_for_all("proxmox_token_file", _group_data(here, options.get("group_data") or ()))
    return str([_DEFAULT_TOKEN_FILE, *filter(None, files)][-1])


def _group_data(here: Path, more: Iterable[str]) -> list[Path]:
    """Where pyinfra looks for group data, and where the operator's own are, later ones first in rank."""
    return list(dict.fromkeys([Path.cwd() / "group_data", here / "group_data", *map(Path, more), personal_data()]))
