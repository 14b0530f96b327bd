"""What a flake says of hosts in the words of deploy-rs, colmena and clan, in ours; and what of it is not kept. Pure.

Formats: deploy-rs's README ("Generic settings", `deploy.nodes`), colmena's manual ("Deployment options"), clan's
reference ("Inventory Submodule", `clan.core.networking`, `clan.core.vars`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nixherd.base.becoming_root import Become
from nixherd.base.errors import FleetError
from nixherd.base.ssh_options import HopName, SshOptions
from nixherd.fleet.models import FLAKE, Unkept
from nixherd.fleet.nix_values import nix_type, shown, shown_name
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.schema import Place, fields_of
from nixherd.nix.kinds import Output

_SYSTEM_PROFILE = "/nix/var/nix/profiles/system"
_PROOF = "nixherd proves every system and goes back by itself; its times are activation_deadline and confirm_deadline"
_ROOT = "nixherd becomes root by sudo or doas (become), and asks for sudo's password where that needs one"
_OF_NODES = {
    "activationTimeout": _PROOF,
    "autoRollback": _PROOF,
    "confirmTimeout": _PROOF,
    "interactiveSudo": _ROOT,
    "magicRollback": _PROOF,
    "sudo": _ROOT,
    "tempPath": "nixherd has a directory of its own on a machine",
}
# What colmena means by these without a word is what nixherd does.
_OF_HIVES = {
    "allowLocalDeployment": (False, "a machine deploys itself where it is called as its host is"),
    "privilegeEscalationCommand": (["sudo", "-H", "--"], _ROOT),
    "replaceUnknownProfiles": (True, "nixherd replaces whatever system runs, and shows what changes"),
}
_SSH = "the way to a machine, and the keys to log in with, are those of your ssh_config; write it there"


@dataclass(frozen=True)
class Told:
    """What another tool's words for a host come to: attributes of hosts.nix, and what is not kept of them.

    `nowhere` is why it has no address, which the fleet's own files have to say then.
    """

    entry: Mapping[str, Any] = field(default_factory=dict)
    unkept: Sequence[Unkept] = ()
    nowhere: str | None = None


def unkept(outputs: Outputs) -> Iterator[Unkept]:
    """What deploy-rs is told that nixherd has no part in, by names alone; no value is looked at."""
    for setting in outputs.node_settings:
        if setting in _OF_NODES:
            yield Unkept(f"deploy.{setting}", _OF_NODES[setting], tuple(outputs.nodes))
    for setting, why in _OF_NODES.items():
        if names := [name for name, node in outputs.nodes.items() if setting in node.settings]:
            yield Unkept(f"{Output.NODE}.{_together(names)}.{setting}", why, tuple(names))
    for name, node in outputs.nodes.items():
        if others := [profile for profile in node.profiles if profile != "system"]:
            why = "the system alone is deployed; a home is a host of its own, by homeConfigurations"
            yield Unkept(f"{Output.NODE}.{shown_name(name)}.profiles.{_together(others)}", why, (name,))


def _together(names: Sequence[str]) -> str:
    text = ",".join(map(shown_name, names))
    return text if len(names) == 1 else f"{{{text}}}"


def told(shape: Any, name: str) -> Told:
    """What deploy_rs.nix, colmena.nix or clan.nix gave for a host of this name in the flake.

    FleetError, a line, for what is wrong or would not be deployed as the other tool does.
    """
    if not shape:
        return Told()
    try:
        [(tool, values)] = shape.items()
        read = {"deploy-rs": _deploy_rs, "colmena": _colmena, "clan": _clan}[tool]
        return read(values, name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FleetError(f"what another tool is told of {name} came out as something unexpected ({error!r})") from error


def _deploy_rs(values: Mapping[str, Any], name: str) -> Told:
    at = f"{Output.NODE}.{name}"
    levels: list[Mapping[str, Any]] = values["settings"]

    def setting(key: str) -> Any:
        return next((level[key] for level in levels if level.get(key) is not None), None)

    if (user := setting("user")) not in (None, "root"):
        what = f"{at}.profiles.system.user: is {_text(user)}, and a system is activated by root"
        raise FleetError(f'{FLAKE}: {what}; write user = "root" there')
    if (path := setting("profilePath")) not in (None, _SYSTEM_PROFILE):
        what = f"{at}.profiles.system.profilePath: is {_text(path)}, and a system's profile is {_SYSTEM_PROFILE}"
        raise FleetError(f"{FLAKE}: {what}; take it out")
    entry: dict[str, Any] = {}
    if (host := values["hostname"]) is not None:
        entry["addresses"] = [_sound(f"{at}.hostname", "addresses", host, is_one=True)]
    if (user := setting("sshUser")) is not None:
        entry["user"] = _sound(f"{at}.sshUser", "user", user)
    if _flag(f"{at}.remoteBuild", setting("remoteBuild")):
        entry["build_on"] = "target"
    if _flag(f"{at}.fastConnection", setting("fastConnection")):
        entry["substitute_on_destination"] = False
    by = setting("sudo")
    if isinstance(by, str) and by.split()[:1] == [Become.DOAS]:
        entry["become"] = str(Become.DOAS)
    given = [level["sshOpts"] for level in levels if level.get("sshOpts") is not None]
    return Told(*_with_options(f"{at}.sshOpts", given, entry, name))


def _colmena(values: Mapping[str, Any], name: str) -> Told:
    at = f"{Output.RAW}.{name}.deployment"
    if values["place"] == Output.HIVE:
        at = f"{Output.HIVE}.{name}.config.deployment"
    if keys := values["keys"]:
        what = f"{at}.keys: colmena uploads {', '.join(map(shown_name, keys))}, and nixherd sends no key files"
        remedy = "declare them as sops.secrets (docs/secrets.md), and take them out there"
        raise FleetError(f"{FLAKE}: {what}; {remedy}")
    entry: dict[str, Any] = {}
    if (user := values.get("targetUser")) is not None:
        entry["user"] = _sound(f"{at}.targetUser", "user", user)
    nowhere = None
    if (host := values.get("targetHost")) is None:
        nowhere = f"{FLAKE}: {at}.targetHost: is null, so that colmena reaches it from nowhere else; say its address"
    else:
        before, is_split, address = host.rpartition("@") if isinstance(host, str) else ("", "", host)
        if is_split:
            entry["user"] = _sound(f"{at}.targetHost", "user", before)
        entry["addresses"] = [_sound(f"{at}.targetHost", "addresses", address, is_one=True)]
    if (port := values.get("targetPort")) is not None:
        entry["port"] = _sound(f"{at}.targetPort", "port", port)
    if tags := values.get("tags"):
        entry["tags"] = _sound(f"{at}.tags", "tags", tags)
    if _flag(f"{at}.buildOnTarget", values.get("buildOnTarget")):
        entry["build_on"] = "target"
    by = values.get("privilegeEscalationCommand")
    if isinstance(by, list) and by and by[0] in tuple(Become):
        entry["become"] = by[0]
    given = [values["sshOptions"]] if values.get("sshOptions") is not None else []
    entry, left = _with_options(f"{at}.sshOptions", given, entry, name)
    changed = (
        Unkept(f"{at}.{key}", why, (name,))
        for key, (usual, why) in _OF_HIVES.items()
        if key in values and values[key] not in (usual, ["doas"], ["doas", "--"])
    )
    return Told(entry, (*left, *changed), nowhere)


_VARS = "nixherd generates no vars and uploads none; `clan vars generate {0}` and `clan vars upload {0}` do"
_EXPLICIT = "nixherd deploys it with the others where no hosts are named; leave it out with --exclude"
_AGENT = "no agent is ever forwarded; the closure comes from here, so that none is needed"
_BUILDER = "is not kept; say the host of the fleet that builds, build_on"
_LOCALHOST = ("localhost", "127.0.0.1", "::1")
# clan gives each machine these by itself
_OF_ALL_MACHINES = ("all", "nixos", "darwin")


def _clan(values: Mapping[str, Any], name: str) -> Told:
    inventory = f"{Output.CLAN}.{name}.deploy"
    configuration = f"{Output.SYSTEM}.{name}.config.clan.core"
    if secrets := values["secrets"]:
        what = f"{configuration}.vars: clan uploads {', '.join(map(shown_name, secrets))}, and nixherd sends no secrets"
        remedy = 'keep them in sops (vars.settings.secretStore = "sops"), for services or users, or deploy it by clan'
        raise FleetError(f"{FLAKE}: {what}; {remedy}")

    def setting(key: str) -> tuple[str, Any]:
        at = inventory if values[key]["inInventory"] else f"{configuration}.networking"
        return f"{at}.{key}", values[key]["value"]

    entry: dict[str, Any] = {}
    unkept: list[Unkept] = []
    at, target = setting("targetHost")
    if target is not None:
        hop, words = _remote(at, target)
        entry["user"] = _sound(at, "user", hop.user or "root")
        entry["addresses"] = [_sound(at, "addresses", hop.name, is_one=True)]
        if hop.port is not None:
            entry["port"] = hop.port
        entry, left = _with_options(at, [words], entry, name)
        unkept += left
    at_builder, builder = setting("buildHost")
    if builder is None or builder == target:
        entry["build_on"] = "target"
    elif _remote(at_builder, builder)[0].name not in _LOCALHOST:
        unkept.append(Unkept(at_builder, f"{shown(builder)} {_BUILDER}", (name,)))
    if tags := [tag for tag in values["tags"] if tag not in _OF_ALL_MACHINES]:
        entry["tags"] = _sound(f"{Output.CLAN}.{name}.tags", "tags", tags)
    at_agent, forwards = setting("forwardAgent")
    if forwards:
        unkept.append(Unkept(at_agent, _AGENT, (name,)))
    if values["requireExplicitUpdate"]:
        unkept.append(Unkept(f"{configuration}.deployment.requireExplicitUpdate", _EXPLICIT, (name,)))
    if values["generates"]:
        unkept.append(Unkept(f"{configuration}.vars.generators", _VARS.format(name), (name,)))
    return Told(entry, tuple(unkept))


def _remote(attribute: str, value: Any) -> tuple[HopName, list[str]]:
    """A machine as clan writes it, `USER@HOST:PORT?OPTION=VALUE&…`, and the options in ssh's words."""
    if not isinstance(value, str):
        raise FleetError(f"{FLAKE}: {attribute}: is {nix_type(value)}, not a string; write it as user@host:port")
    where, *options = re.split("[?&]", value)
    try:
        hop = HopName.parse(where)
    except ValueError as error:
        raise FleetError(f"{FLAKE}: {attribute}: {error}; write it as user@host:port") from None
    return hop, [word for option in options for word in ("-o", option)]


def _with_options(
    attribute: str, given: Sequence[Any], entry: dict[str, Any], name: str
) -> tuple[dict[str, Any], tuple[Unkept, ...]]:
    """The entry with what ssh's options say that it has no word of, and which of them are not kept."""
    for words in given:
        if wrong := _why_not_words(words):
            raise FleetError(f'{FLAKE}: {attribute}: {wrong}; write a list of strings, such as [ "-p" "2222" ]')
    options = SshOptions.parse([word for words in given for word in words])
    if options.port is not None and "port" not in entry:
        number = int(options.port) if options.port.isascii() and options.port.isdigit() else options.port
        entry["port"] = _sound(attribute, "port", number)
    if options.jump is not None:
        entry["jump"] = _sound(attribute, "jump", [each.strip() for each in options.jump.split(",")])
    left = ", ".join(" ".join(shown(word)[1:-1] for word in words) for words in options.left)
    return entry, (Unkept(attribute, f"{left}: {_SSH}", (name,)),) if left else ()


def _why_not_words(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"is {nix_type(value)}"
    return next((f"has {nix_type(each)} in it" for each in value if not isinstance(each, str)), None)


def _sound(attribute: str, field_name: str, value: Any, *, is_one: bool = False) -> Any:
    """A value that may stand in hosts.nix under a name of ours; `is_one` of the list that is due there."""
    known = fields_of(Place.HOST)[field_name]
    problem = next(known.type.problems([value] if is_one else value), None)
    if problem is None:
        return value
    at = "" if is_one else problem.at
    raise FleetError(f"{FLAKE}: {attribute}{at}: {problem.what}; {problem.remedy or known.remedy}")


def _flag(attribute: str, value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise FleetError(f"{FLAKE}: {attribute}: is {nix_type(value)}, not a boolean; write true or false")
    return bool(value)


def _text(value: Any) -> str:
    return shown(value) if isinstance(value, str) else nix_type(value)
