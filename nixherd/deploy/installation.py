"""What an installation needs on this side, judged before anything is changed."""

import base64
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

from nixherd.base.errors import FleetError, FleetInvalid, Usage
from nixherd.base.files import expanded
from nixherd.deploy import carried
from nixherd.deploy.machine import Machine, output_of
from nixherd.fleet.git import Repository
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import opened
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.image import Image, here

GENERATED, REPORTED = "hardware-configuration.nix", "facter.json"  # beside the host's configuration
FACTER = "nixos-facter"
_DATA = {GENERATED: "hardware_configuration", REPORTED: "hardware_report"}
_EMPTY = {GENERATED: "an empty module, { },", REPORTED: "an empty object, {},"}
_HEX = re.compile(r"[0-9a-f]{64}")
_SRI = re.compile(r"sha256-[A-Za-z0-9+/]{43}=")
_URL = re.compile(r"https?://[!-~]+")
_PLAIN = re.compile(r"(/[A-Za-z0-9._+@:=-]+)+")
# Where a key would not be in the installer's memory alone, or would take the place of something else.
_NO_PLACE = ("/boot", "/dev", "/etc", "/mnt", "/nix", "/proc", "/sys")
_LARGEST_KEY = 8 << 20  # bytes: cryptsetup(8)'s own limit


@dataclass(frozen=True)
class Given:
    """What the operator gave as data for an installation, unchecked; the names are those of the data."""

    extra_files: Any = None
    extra_owners: Any = None
    hardware_configuration: Any = None
    hardware_report: Any = None
    disk_encryption_keys: Any = None
    kexec: Any = None
    kexec_sha256: Any = None

    @classmethod
    def of(cls, data: Callable[[str], Any]) -> "Given":
        return cls(**{each.name: data(each.name) for each in fields(cls)})

    def image(self, host_id: str, system: str | None) -> Image:
        """Which installer takes the machine over. Usage where it is none that could be."""
        if self.kexec is None and self.kexec_sha256 is None:
            return Image(system or here())
        given, sha256 = str(self.kexec or ""), self.kexec_sha256
        if not _URL.fullmatch(given):
            if sha256 is not None or not given:
                raise Usage(f"{host_id}: kexec_sha256: is for kexec=URL (https://…); a file is taken as it is")
            return Image(system or here(), str(expanded(given)))
        if sha256 is None:
            raise Usage(f"{host_id}: kexec={given}: say its hash as well, --kexec-sha256 (kexec_sha256)")
        return Image(system or here(), given, _sri(host_id, str(sha256)))


def _sri(host_id: str, sha256: str) -> str:
    """The hash as Nix writes it."""
    if _HEX.fullmatch(sha256.lower()):
        return f"sha256-{base64.b64encode(bytes.fromhex(sha256)).decode()}"
    if not _SRI.fullmatch(sha256):
        raise Usage(f"{host_id}: kexec_sha256={sha256}: is not a SHA-256; write 64 hex digits, or sha256-…")
    return sha256


def disk_keys(host_id: str, given: Any) -> dict[str, bytes]:
    """What each key file of the installer is to hold. FleetInvalid with all that is wrong."""
    if not given:
        return {}
    if not isinstance(given, Mapping):
        raise FleetInvalid([f'{host_id}: disk_encryption_keys: write it as {{"/tmp/secret.key": "local/file"}}'])
    keys: dict[str, bytes] = {}
    findings = []
    for remote, local in given.items():
        try:
            keys[_key_place(str(remote))] = _key(expanded(str(local)))
        except FleetError as error:
            findings.append(f"{host_id}: disk_encryption_keys: {error}")
    if findings:
        raise FleetInvalid(findings)
    return keys


def _key_place(remote: str) -> str:
    is_plain = _PLAIN.fullmatch(remote) and not {".", ".."} & {*remote.split("/")}
    if not is_plain or any(PurePath(remote).is_relative_to(each) for each in _NO_PLACE):
        raise Usage(f"{remote} cannot hold a key in the installer's memory; write a path like /tmp/secret.key")
    return remote


def _key(local: Path) -> bytes:
    """A key file's content. FleetError where it is none that only its owner reads."""
    try:
        handle = os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise FleetError(f"{local} is not a file; a pipe can be read only once, so write the key into a file")
            if status.st_mode & 0o077:
                raise FleetError(f"{local}: others may read this key; chmod 600 it")
            content = file.read(_LARGEST_KEY + 1)
    except OSError as error:
        raise FleetError(f"{local} cannot be read ({error.strerror}); correct the path of the key") from error
    if not 0 < len(content) <= _LARGEST_KEY:
        raise FleetError(f"{local} is empty, or larger than {_LARGEST_KEY >> 20} MiB; name the file with the key")
    return content


def obstacles(keys: HostKeys, builder: Builder, config: Evaluated, given: Given) -> Iterator[str]:
    """One line per finding; none when the host of `config` can be installed."""
    host_id = config.host_id
    if problem := keys.problem(host_id):
        yield problem
    if config.disko_script is None:
        yield f"{host_id}: config.system.build.diskoScript is missing; import disko and declare its disks"
    for judge in (
        lambda: builder.require_installer(given.image(host_id, config.system)),
        lambda: given.extra_files and carried.read(host_id, given.extra_files, given.extra_owners),
        lambda: disk_keys(host_id, given.disk_encryption_keys),
        lambda: (
            given.hardware_configuration
            and configuration_path(keys.fleet, host_id, given.hardware_configuration, GENERATED)
        ),
        lambda: given.hardware_report and configuration_path(keys.fleet, host_id, given.hardware_report, REPORTED),
    ):
        try:
            judge()
        except FleetInvalid as error:
            yield from error.findings
        except FleetError as error:
            yield str(error)


def configuration_path(fleet: Fleet, host_id: str, given: str | bool, name: str = GENERATED) -> Path:
    """Where the file belongs: `given`, relative to the flake, or as `name` beside the host's configuration when True.

    FleetError when it lies outside the flake, a link leads there, or git does not know it: Nix would not see it there.
    """
    flake = Path(fleet.path)
    configuration = fleet.hosts[host_id].configuration_file
    if given is True and configuration:
        file = str(Path(configuration).parent / name)
    else:
        file = str(flake / str(given))
    inside = _below(file, flake) or _below(file, flake.resolve())
    if inside is None:
        raise FleetError(f"{host_id}: {_DATA[name]}: {file} is not in the flake {flake}")
    path = flake / inside
    with opened(flake) as tree:
        if tree.stat(str(inside)) is None:
            raise FleetError(f"{path}: not there; create it ({_EMPTY[name]} will do) and `git add` it")
    repository = Repository.around(flake)
    if repository is not None and not repository.tracked([str(inside)]):
        raise FleetError(f"{path}: git does not know it, so Nix would not see it; `git add` it first")
    return path


def _below(path: str, directory: Path) -> PurePath | None:
    """The path below a directory, by its letters: links are not followed, here or later."""
    normal = PurePath(os.path.normpath(path))
    return normal.relative_to(directory) if normal.is_relative_to(directory) and normal != directory else None


def hardware_of(machine: Machine, program: str, options: str) -> str:
    """What a program of the installer says of the machine's hardware. FleetError where it does not have it."""
    if machine.run(f"command -v {program} >/dev/null").status != 0:
        other = "an installer of nixos-images has it, or write hardware-configuration.nix (--hardware generate)"
        raise FleetError(f"{machine.id}: its installer lacks {program}; {other}")
    text = output_of(machine, f"{program} {options}".rstrip(), what=program).rstrip("\n")
    if program == FACTER and not _is_object(text):
        raise FleetError(f"{machine.id}: {program} printed no JSON object: {text[:100]!r}")
    return f"{text}\n" if text else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
