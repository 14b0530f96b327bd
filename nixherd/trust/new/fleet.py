"""A small fleet to begin with: a flake with one host, as files that are to be written. Pure."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nixherd.base.names import HOST_ID, is_a
from nixherd.fleet.models import DEFINITIONS, FLAKE, HOSTS, NOTHING, Endpoint, Fleet, Template, VmidRange
from nixherd.fleet.schema import DEFAULT_FLEET_ID, DEFAULT_PORT
from nixherd.nix.commands import nix_string
from nixherd.trust import templating
from nixherd.trust.new.host import NewHost
from nixherd.trust.new.scaffold import guest_entry, host_entry, render_files

COMMON = "common.nix"
SYSTEMS = ("x86_64-linux", "aarch64-linux")
TIME_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_TRIALS = 99  # VMIDs above the template's, under which it is tried
_TEMPLATES = Path(__file__).parents[1] / "templates"
_FIRST = "# Every machine of the fleet, once. {}\n{{\n}}\n"
_KEY_COMES = "publicKey is pinned by nixherd when a machine is installed, or by `nixherd trust`."


@dataclass(frozen=True, slots=True)
class SmallFleet:
    """`system` is the host's, as `aarch64-linux`. Without an endpoint there are no guests.

    `has_template`: the template is there; else there are VMIDs to try one under.
    """

    id: str
    host: NewHost
    system: str
    time_zone: str
    endpoint: Endpoint | None = None
    template: Template | None = None
    has_template: bool = False

    def files(self) -> dict[str, bytes]:
        """The contents of all its files, by path from its directory; the flake, which makes it a fleet, comes last."""
        hosts = host_entry(_FIRST.format(_KEY_COMES).encode(), self.host, hosts=0).content
        found = {path: self._of_its_system(content) for path, content in render_files(self.host).items()}
        found |= {HOSTS: hosts, COMMON: self._render("common.nix")}
        if self.endpoint is not None:
            found[DEFINITIONS] = guest_entry(self._render("definitions.nix"), self.host, managed=0).content
        return {**found, FLAKE: self._render("flake.nix")}

    def _of_its_system(self, content: bytes) -> bytes:
        return content.replace(f'"{SYSTEMS[0]}"'.encode(), f'"{self.system}"'.encode())

    def _render(self, name: str) -> bytes:
        text = (_TEMPLATES / f"{name}.j2").read_text()
        return templating.render(text, partial(_values, self)).encode()


def _values(small: SmallFleet) -> Mapping[str, Any]:
    endpoint, values = small.endpoint, {"system": small.system, "time_zone": nix_string(small.time_zone)}
    if endpoint is None:
        return values
    texts = {"host": endpoint.host, "node": endpoint.node, "storage": endpoint.default_storage or ""}
    if endpoint.fingerprint:
        texts["fingerprint"] = endpoint.fingerprint
    quoted: dict[str, Any] = {name: nix_string(text) for name, text in texts.items()}
    quoted |= {
        "fingerprint": quoted.get("fingerprint"),
        "port": None if endpoint.port == DEFAULT_PORT else endpoint.port,
    }
    template = small.template
    assert template is not None, "guests are cloned from it"
    model = {"vmid": template.vmid, "node": nix_string(template.node) if template.node else None}
    return {
        **values,
        "fleet": nix_string(small.id),
        "endpoint": quoted,
        "template": {**model, "is_there": small.has_template},
        "trials": None if small.has_template else {"start": template.vmid, "end": template.vmid + _TRIALS},
    }


def before(directory: Path, endpoint: Endpoint | None = None, template: Template | None = None) -> Fleet:
    """The fleet that a directory without one is, to decide of its first host by."""
    letters = unicodedata.normalize("NFKD", directory.name.lower()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")
    fleet_id = name if is_a(HOST_ID, name) else DEFAULT_FLEET_ID
    if endpoint is None:
        return Fleet(str(directory), fleet_id, NOTHING)
    ranges = (VmidRange("production", 100, 199),)
    return Fleet(str(directory), fleet_id, NOTHING, endpoint=endpoint, template=template, ranges=ranges)
