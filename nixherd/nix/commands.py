"""Nix's command lines and what they print: one function per verb, pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from nixherd.base.errors import FleetError
from nixherd.nix import declared
from nixherd.nix.declared import Declared
from nixherd.nix.kinds import WORDING as _KINDS
from nixherd.nix.kinds import Output
from nixherd.nix.log import HOST_MARK, LOG_FORMAT

NIX = ("nix", "--extra-experimental-features", "nix-command flakes")
_ROOT_ACCESS, _DECLARED, _DETAILS, _OUTPUTS, _OTHERS, _DESCRIBE = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("root_access.nix", "declared.nix", "details.nix", "outputs.nix", "others.nix", "describe.nix")
)
STORE_PATH = re.compile(r"^/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+$")

PUBLIC_KEY = (*NIX, "key", "convert-secret-to-public")
"""the public half, as trusted-public-keys has it, of the secret key on stdin"""
STORE_INFO = (*NIX, "store", "info", "--json")
"""whom a store trusts"""


class Remote(Protocol):
    """A machine as Nix is told it: its store's URL, its daemon's, `user@host`, SSH's options."""

    @property
    def url(self) -> str: ...
    @property
    def daemon(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def nix_sshopts(self) -> str: ...


@dataclass(frozen=True)
class Evaluated:
    """What one host of the flake is, before anything is built. Paths are store paths.

    `toplevel` is a NixOS host's system, or a home's generation, which has nothing of the rest.
    `guest_agent` and `ssh`: whether their services are enabled, None without such an option.
    `revision` is the fleet's that it is of, None where nobody can say; `configuration_revision` the option, which has
    what it says in the system itself: then every commit makes another system.
    """

    host_id: str
    toplevel: str
    toplevel_drv: str
    disko_script: str | None
    disko_drv: str | None
    hostname: str
    configuration_revision: str | None
    devices: tuple[str, ...]
    boot_loader: str | None
    grub_efi: bool
    guest_agent: bool | None
    ssh: bool | None
    declared: Declared = field(default=Declared(""), compare=False)
    """what it declares to sops-nix"""

    health: Any = field(default=None, compare=False)
    """the option nixherd.healthChecks, unjudged"""

    health_of: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """the same of specialisations, by name; None where it is not known"""

    revision: str | None = None

    root_access: bool | None = None
    """whether one that was just installed has a way to root (root_access.nix)"""

    system: str | None = None
    """what it runs on, as `aarch64-linux`; None of a home, or where the configuration does not tell"""

    details: Any = field(default=None, compare=False)
    """how it is reached and deployed to (details.nix), unjudged"""

    updates: Mapping[str, bool] | None = None
    """what of it brings it updates without anybody: pulls, pullsByTimer, updates (homelab.update), upgrades
    (system.autoUpgrade); None of a home"""

    verdict: str | None = None
    """why another tool that the flake is for would not deploy this system (deploy_rs.nix)"""

    @property
    def derivations(self) -> list[str]:
        return [drv for drv in (self.toplevel_drv, self.disko_drv) if drv]


def is_store_path(text: str) -> bool:
    return STORE_PATH.match(text) is not None


def nix_string(text: str) -> str:
    """Write the text as a Nix string literal; a bare carriage return is escaped, for Nix reads it as a newline."""
    escaped = re.sub(r'(["\\]|\$\{)', r"\\\1", text)
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'


def describe(flake: str, names: Iterable[str], kind: Output = Output.SYSTEM) -> list[str]:
    """Evaluate all hosts of one kind at once."""
    return _of(flake, kind, _asked("homes" if kind.is_home else "hosts", names))


def describe_declared(flake: str, names: Iterable[str], kind: Output) -> list[str]:
    """Evaluate what hosts declare of secrets, all at once, and nothing else of them."""
    return _of(flake, kind, _asked("homesDeclared" if kind.is_home else "hostsDeclared", names))


def describe_details(flake: str, names: Iterable[str], kind: Output) -> list[str]:
    """Evaluate what configurations say of how they are reached and deployed to, all at once, and nothing else."""
    return _of(flake, kind, _asked("homesDetails" if kind.is_home else "hostsDetails", names))


def outputs(flake: str, marker: str, *, everywhere: bool = True) -> list[str]:
    """Give the names of all configurations of the flake, none of which is evaluated, and its output nixherd.hosts.

    `.` alone is the set of all outputs. `everywhere`: also of configurations among packages.
    """
    return _eval(f"{flake}#.", f"({_OUTPUTS}) {nix_string(marker)} {'true' if everywhere else 'false'}")


def others(flake: str) -> list[str]:
    """Give the names of what the flake has for other tools: hives, and deploy-rs' nodes. Nothing of it is evaluated."""
    return _eval(f"{flake}#.", _OTHERS)


def describe_built(flake: str, names: Iterable[str], kind: Output) -> list[str]:
    """Evaluate configurations that are not hosts of ours, and are only built."""
    return _of(flake, kind, _asked("homes" if kind.is_home else "systems", names))


def jobs_of(names: Iterable[str], kind: Output) -> str:
    """Return the function from what a flake has of a kind to these hosts' derivations, each with its description."""
    return kind.applied(_asked("homeJobs" if kind.is_home else "hostJobs", names))


def as_of(flake: str, names: Iterable[str], revision: str, kind: Output) -> list[str]:
    """Evaluate these hosts as if the flake's revision, which is in their systems, were another one."""
    return _of(flake, kind, _asked(f"asOf {nix_string(revision)}", names))


def names(flake: str, attribute: str) -> list[str]:
    """Give the names in an attribute set of the flake's, none of which is evaluated."""
    return _eval(f"{flake}#{attribute}", "builtins.attrNames")


def duties(flake: str, name: str, kind: Output) -> list[str]:
    """Evaluate what a NixOS host does for the others, by what its configuration enables: a boolean by name."""
    return _of(flake, kind, f"{_QUESTIONS}.duties {nix_string(name)}")


def evaluate_option(flake: str, kind: Output, path: Sequence[str]) -> list[str]:
    """Evaluate an option's value: `path` is the configuration's name and the parts of the option's."""
    host_id, *parts = path
    name = ".".join(parts)
    missing = f"throw ({nix_string(f'{host_id}: {name} is not an option; not there: ')} + n)"
    step = f"s: n: if builtins.isAttrs s && s ? ${{n}} then s.${{n}} else {missing}"
    names = " ".join(nix_string(part) for part in parts)
    return _of(flake, kind, f"all: builtins.foldl' ({step}) all.${{{nix_string(host_id)}}}.config [{names}]")


def repl(flake: str, kind: Output | None = None, path: Sequence[str] = ()) -> list[str]:
    """Open a prompt on a flake, or on the configuration whose name `path` is."""
    place = ".".join((kind.place, *map(nix_string, path))) if kind else ""
    return [*NIX, "repl", "--no-write-lock-file", f"{flake}#{place}" if place else flake]


_QUESTIONS = (
    f"(({_DESCRIBE}) {{ mark = {nix_string(HOST_MARK)}; rootAccess = ({_ROOT_ACCESS}); declared = ({_DECLARED}); "
    f"details = ({_DETAILS}); }})"
)
WORDING = hashlib.sha256(f"{_QUESTIONS}{_OUTPUTS}{_KINDS}".encode()).hexdigest()
"""of what is asked of a flake: another one would be answered otherwise"""


def _asked(question: str, ids: Iterable[str]) -> str:
    """Return a function of describe.nix for the configurations of these names."""
    return f"{_QUESTIONS}.{question} (builtins.fromJSON {nix_string(json.dumps(list(ids)))})"


def flake_evaluates(flake: str) -> list[str]:
    """Evaluate all that a flake has, and build nothing."""
    return [*NIX, "flake", "check", "--no-build", "--no-write-lock-file", *LOG_FORMAT, flake]


def _of(flake: str, kind: Output, function: str) -> list[str]:
    """Apply a function of the configurations of one kind, by their names."""
    return _eval(kind.installable(flake), kind.applied(function))


def _eval(installable: str, function: str) -> list[str]:
    return [*NIX, "eval", "--json", "--no-write-lock-file", *LOG_FORMAT, installable, "--apply", function]


def flake_metadata(reference: str) -> list[str]:
    """Lock a flake reference; an error where its lock file does not name all inputs.

    An input that is not locked may be any directory of this machine, and goes to the Nix store.
    """
    return [*NIX, "flake", "metadata", "--json", "--no-update-lock-file", reference]


def flake_source(flake: str) -> list[str]:
    """Tell where the source of a flake is in the store, and what its inputs are, as an evaluation sees them."""
    return [*NIX, "flake", "metadata", "--json", "--no-write-lock-file", flake]


def flake_check(reference: str) -> list[str]:
    """Evaluate all that a flake has and build its checks; go on after an error. Its lock file has to be whole."""
    return [*NIX, "flake", "check", "--keep-going", "--no-update-lock-file", *LOG_FORMAT, reference]


def parse_names(text: str) -> list[str]:
    return [str(name) for name in json.loads(text)]


def parse_description(text: str) -> dict[str, Evaluated | None]:
    """Parse hosts by id; None for a host that the flake does not have. Raise FleetError on anything else."""
    hosts: dict[str, Evaluated | None] = {}
    try:
        document: Mapping[str, Mapping[str, object] | None] = json.loads(text)
        for host_id, values in document.items():
            hosts[host_id] = None if values is None else evaluated(host_id, values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"nix eval printed something unexpected ({error!r}): {text[:200]}") from error
    return hosts


def parse_declared(text: str) -> dict[str, Declared | None]:
    """Parse what hosts declare, by id; None for a host that the flake does not have. FleetError on anything else."""
    try:
        document: Mapping[str, Mapping[str, Any] | None] = json.loads(text)
        return {id: None if each is None else declared.parse(id, each) for id, each in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"nix eval printed something unexpected ({error!r}): {text[:200]}") from error


def evaluated(host_id: str, values: Mapping[str, Any]) -> Evaluated:
    """Parse what `description` comes to. KeyError, TypeError, ValueError or AttributeError on anything else."""
    return Evaluated(
        host_id=host_id,
        toplevel=_path(values["toplevel"]),
        toplevel_drv=_path(values["toplevelDrv"]),
        disko_script=_path(values["diskoScript"]) if values["diskoScript"] else None,
        disko_drv=_path(values["diskoDrv"]) if values["diskoDrv"] else None,
        hostname=str(values["hostname"]),
        configuration_revision=str(values["revision"]) if values["revision"] else None,
        devices=tuple(str(device) for device in values["devices"]),
        boot_loader=str(values["bootLoader"]) if values["bootLoader"] else None,
        grub_efi=bool(values["grubEfi"]),
        guest_agent=_flag(values["guestAgent"]),
        ssh=_flag(values["ssh"]),
        declared=declared.parse(host_id, values["declared"]),
        health=values["health"],
        health_of={str(name): value for name, value in (values.get("healthOf") or {}).items()},
        root_access=_flag(values["rootAccess"]),
        system=str(values["system"]) if values["system"] else None,
        details=values["details"],
        updates=_flags(values.get("updates")),
        verdict=str(values["verdict"]) if values.get("verdict") else None,
    )


def _flag(value: object) -> bool | None:
    return None if value is None else bool(value)


def _flags(values: object) -> dict[str, bool] | None:
    return {str(name): bool(value) for name, value in values.items()} if isinstance(values, Mapping) else None


def _path(value: object) -> str:
    if not isinstance(value, str) or not is_store_path(value):
        raise ValueError(f"{value!r} is not a store path")
    return value


def revision_of(version_json: str) -> str | None:
    """Return configurationRevision in what `nixos-version --json` prints; None without one."""
    try:
        version = json.loads(version_json)
    except ValueError:
        return None
    revision = version.get("configurationRevision") if isinstance(version, dict) else None
    return revision if isinstance(revision, str) else None


def build(installables: Sequence[str], out_link: str) -> list[str]:
    """Build everything in one go; `out_link` holds the results as GC roots."""
    options = ["--no-write-lock-file", "--keep-going", "--print-out-paths", "--out-link", out_link, *LOG_FORMAT]
    return [*NIX, "build", *options, *installables]


def build_at(installables: Sequence[str], at: Remote) -> tuple[list[str], dict[str, str]]:
    """Build derivations of the store here on a machine, where the results stay: argv and environment."""
    options = ["--store", at.daemon, "--eval-store", "auto", "--keep-going", "--no-link", *LOG_FORMAT]
    return [*NIX, "build", *options, *installables], {"NIX_SSHOPTS": at.nix_sshopts}


def build_from(installables: Sequence[str], at: Remote) -> tuple[list[str], dict[str, str]]:
    """Copy the results here before the connection ends, so that no garbage collector takes them there."""
    options = ["--from", at.daemon, "--eval-store", "auto", "--keep-going", "--no-check-sigs", *LOG_FORMAT]
    return [*NIX, "copy", *options, *installables], {"NIX_SSHOPTS": at.nix_sshopts}


def path_info(paths: Sequence[str]) -> list[str]:
    """Give everything that these paths of the local store refer to, as JSON."""
    return [*NIX, "path-info", "--recursive", "--json", *paths]


def closure_sizes(path: str) -> list[str]:
    """Give the paths in a closure with their sizes, a line each."""
    return [*NIX, "path-info", "--recursive", "--size", path]


def sign(paths: Sequence[str], key_file: str) -> list[str]:
    """Sign everything in these closures."""
    return [*NIX, "store", "sign", "--recursive", "--key-file", key_file, *paths]


def signatures(path: str) -> list[str]:
    """Give a path's signatures, among other marks of it."""
    return [*NIX, "path-info", "--sigs", path]


def parse_signatures(text: str) -> list[str]:
    """Return the signatures, as `NAME:BASE64`; other marks (built here, content-addressed) are left out."""
    return [word for word in text.split()[1:] if ":" in word and not word.startswith("ca:")]


def parse_path_info(text: str) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Parse the size of the NAR in bytes and references, by path."""
    document: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return {path: (int(info["narSize"]), tuple(info["references"])) for path, info in document.items() if info}


def copy_to_cache(paths: Sequence[str], directory: str, key_file: str | None) -> list[str]:
    """Copy closures into a binary cache in a directory, signed with a key as `nix key generate-secret` makes it."""
    store = f"file://{quote(directory)}?compression=zstd"
    store += f"&secret-key={quote(key_file, safe='/')}" if key_file else ""
    return [*NIX, "copy", "--to", store, *paths]


def copy(
    paths: Sequence[str],
    to: Remote,
    root: str | None = None,
    *,
    substitute: bool = True,
    remote_program: str | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Copy closures to a machine, or into the file system mounted at `root` there: argv and environment.

    With `substitute` the target fetches itself what it can from its own caches. `remote_program` starts nix-store
    there: as root, who asks for no signature.
    """
    parameters = [f"remote-store={quote(f'local?root={root}', safe='=')}"] if root else []
    parameters += [f"remote-program={quote(remote_program, safe='')}"] if remote_program else []
    store = to.url + (f"?{'&'.join(parameters)}" if parameters else "")
    options = ["--no-check-sigs", *(["--substitute-on-destination"] if substitute else []), *LOG_FORMAT]
    argv = [*NIX, "copy", *options, "--to", store, *paths]
    return argv, {"NIX_SSHOPTS": to.nix_sshopts}


def path_there(path: str, at: Remote) -> tuple[list[str], dict[str, str]]:
    """Print a path of a machine's store, where it has it: argv and environment."""
    return [*NIX, "path-info", "--store", at.url, path], {"NIX_SSHOPTS": at.nix_sshopts}
