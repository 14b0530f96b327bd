"""What a configuration declares to sops-nix: secrets, templates, and the keys that it decrypts with on the machine.

It is evaluated with the rest of a host, or alone (declared.nix), without the toplevel, which fails while a declared
file does not exist. Options are those of sops-nix' modules/sops and modules/home-manager/sops.nix.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any


@dataclass(frozen=True, slots=True)
class DeclaredSecret:
    """A secret; `name`, `path` and `key` as sops-nix has them, `path` where a link to it is on the machine.

    `file` is the encrypted file, relative to the fleet's directory (`../` where that is in a subdirectory of its
    repository); None where it comes from somewhere else, which `origin` says for people. `owner` and `group` are names,
    or numbers as digits; "" in a home, for its user's. `user` is the home's user, None for a secret of the system.
    """

    name: str
    path: str
    file: str | None
    format: str
    key: str
    needed_for_users: bool = False
    mode: str = "0400"
    owner: str = "0"
    group: str = "0"
    user: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredTemplate:
    """A file that secrets are put into, at `path` on the machine; the rest as a secret has it."""

    name: str
    path: str
    mode: str = "0400"
    owner: str = "0"
    group: str = "0"
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What sops-nix decrypts with, as paths on the machine: the system's, or with `user` a home's."""

    user: str | None
    age_key_file: str | None = None
    age_ssh_keys: tuple[str, ...] = ()
    gnupg_home: str | None = None
    gnupg_ssh_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """What a host's configuration declares. Files are known to be this repository's after `placed`.

    `problem` says why that is not all, or not known at all: then nothing follows from what is missing here.
    `symlinks` are by user the directory of a home's links; `others` the programs beside sops-nix that are to bring
    secrets, such as agenix. `specialisations` are by name what the system declares in each, with what it declares
    anyway, and `containers` those containers that declare secrets for sops-nix inside, for keys of their own.
    """

    host_id: str
    secrets: tuple[DeclaredSecret, ...] = ()
    templates: tuple[DeclaredTemplate, ...] = ()
    identities: tuple[Identity, ...] = ()
    symlinks: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    problem: str | None = None
    specialisations: Mapping[str, "Declared"] = field(default_factory=dict)
    containers: Mapping[str, "Declared"] = field(default_factory=dict)

    @property
    def all_secrets(self) -> tuple[DeclaredSecret, ...]:
        """Those of the system and of its specialisations, each once."""
        special = (secret for each in self.specialisations.values() for secret in each.secrets)
        return tuple(dict.fromkeys((*self.secrets, *special)))

    @property
    def of_system(self) -> tuple[DeclaredSecret, ...]:
        """The secrets that the machine decrypts itself, with its own key, in whichever specialisation."""
        return tuple(secret for secret in self.all_secrets if secret.user is None)

    @property
    def of_homes(self) -> tuple[DeclaredSecret, ...]:
        """The secrets that people decrypt with their keys, when their homes are activated."""
        return tuple(secret for secret in self.all_secrets if secret.user is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of this repository that it declares, or a container of it does, each once, sorted."""
        inside = chain(self.specialisations.values(), self.containers.values())
        return tuple(sorted({*files_of(self.secrets), *chain.from_iterable(each.files for each in inside)}))

    @property
    def unhandled(self) -> tuple[str, ...]:
        """What is unknown of containers, a line each."""
        systems = (self, *self.specialisations.values())
        names = dict.fromkeys(name for each in systems for name in each.containers)
        why = "they are for the container's own key (docs/secrets.md)"
        return tuple(f"{self.host_id}: containers.{name}: who decrypts its secrets is unknown: {why}" for name in names)


def by_file(secrets: Iterable[DeclaredSecret]) -> dict[str, tuple[DeclaredSecret, ...]]:
    """The secrets by the file of this repository that they come from, files sorted; without those from elsewhere."""
    found = defaultdict[str, list[DeclaredSecret]](list)
    for secret in secrets:
        if secret.file is not None:
            found[secret.file].append(secret)
    return {path: tuple(found[path]) for path in sorted(found)}


def files_of(secrets: Iterable[DeclaredSecret]) -> tuple[str, ...]:
    """The files of this repository that the secrets come from, each once, sorted."""
    return tuple(by_file(secrets))


def parse(host_id: str, values: Mapping[str, Any] | None) -> Declared:
    """Parse what declared.nix comes to; each `origin` is a path of the store until the files are placed.

    KeyError, TypeError, ValueError or AttributeError on anything else.
    """
    if values is None:
        return Declared(host_id)
    found = _parsed(host_id, values)
    specialisations, problems = dict[str, Declared](), [found.problem] if found.problem else []
    for name, each in values.get("specialisations", {}).items():
        if each is None:
            problems.append(f"specialisation {name} cannot be evaluated")
            continue
        specialisations[str(name)] = special = _parsed(host_id, each)
        if special.problem is not None and special.problem != found.problem:
            problems.append(f"specialisation {name}: {special.problem}")
    return replace(found, specialisations=specialisations, problem="; ".join(problems) or None)


def _parsed(host_id: str, values: Mapping[str, Any]) -> Declared:
    """Parse what is of one system, or home."""
    secrets, templates, identities, symlinks = list[DeclaredSecret](), list[DeclaredTemplate](), list[Identity](), {}
    problems = list[str]()
    for module in values["sops"]:
        user = module["user"]
        prefix = "sops" if user is None else f"sops of {user}'s home"
        if "secrets" not in module:
            problems.append(f"{user}'s home cannot be evaluated")
            continue
        for each in module["secrets"]:
            problems += _unknown(f"{prefix}.secrets.{each['attribute']}", each["unknown"], ("sopsFile",))
            secrets.append(_secret(each, user))
        for each in module["templates"]:
            problems += _unknown(f"{prefix}.templates.{each['attribute']}", each["unknown"], ())
            templates.append(_template(each, user))
        problems += _unknown(prefix, module["identity"]["unknown"], ())
        identities.append(_identity(module["identity"], user))
        if user is not None and module["symlinks"]["defaultSymlinkPath"]:
            symlinks[str(user)] = str(module["symlinks"]["defaultSymlinkPath"])
    others = tuple(map(str, values["others"]))
    problem = "; ".join(problems) or None
    inside = {str(name): _parsed(host_id, each) for name, each in values.get("containers", {}).items() if each}
    containers = {name: each for name, each in inside.items() if each.secrets}
    whole = tuple(secrets), tuple(templates), tuple(identities), symlinks, others, problem
    return Declared(host_id, *whole, containers=containers)


def _unknown(where: str, names: Sequence[str], required: Sequence[str]) -> Iterator[str]:
    for name in names:
        remedy = "set it, or sops.defaultSopsFile" if name in required else "`nix eval` of it says why"
        yield f"{where}.{name} cannot be evaluated: {remedy}"


def _secret(values: Mapping[str, Any], user: str | None) -> DeclaredSecret:
    name = str(values["name"] or values["attribute"])
    key = values["key"]
    return DeclaredSecret(
        name=name,
        path=str(values["path"] or ""),
        file=None,
        format=str(values["format"] or "yaml"),
        key=str(key if key is not None else values["attribute"]),
        needed_for_users=bool(values["neededForUsers"]),
        mode=str(values["mode"] or "0400"),
        owner=_owner(values["owner"], values["uid"], user),
        group=_owner(values["group"], values["gid"], user),
        user=user,
        origin=str(values["sopsFile"]) if values["sopsFile"] else None,
    )


def _template(values: Mapping[str, Any], user: str | None) -> DeclaredTemplate:
    owner, group = _owner(values["owner"], values["uid"], user), _owner(values["group"], values["gid"], user)
    name, path = str(values["name"] or values["attribute"]), str(values["path"] or "")
    return DeclaredTemplate(name, path, str(values["mode"] or "0400"), owner, group, user)


def _owner(name: Any, number: Any, user: str | None) -> str:
    """As sops-nix writes it: by the name where there is one."""
    if user is not None:
        return ""
    return str(name) if name is not None else str(int(number or 0))


def _identity(values: Mapping[str, Any], user: str | None) -> Identity:
    age, gnupg = (tuple(map(str, values[name] or ())) for name in ("ageSshKeys", "gnupgSshKeys"))
    file, home = (str(values[name]) if values[name] else None for name in ("ageKeyFile", "gnupgHome"))
    return Identity(user, file, age, home, gnupg)
