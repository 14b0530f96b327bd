"""A fleet and programs in a directory, in which faults are planted."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import nix_cli
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.preloaded.programs import Programs, preloaded, shared

ROOT = Path(__file__).parents[3]
PLANTING = Path(__file__).parents[1] / "planting"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@a"
HOST = (
    '{{ hostname = "{0}"; user = "root"; publicKey = "{1}"; configurationFile = ./flake.nix; homeFile = ./flake.nix; '
    'addresses = [ "127.0.0.9" ]; {2} }}'
)
FLAKE = """
{
  outputs = _: {
    nixosConfigurations = builtins.mapAttrs (name: text: {
      config = {
        networking.hostName = name;
        system.build.toplevel = derivation {
          inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" text];
        };
      };
    }) { a = "echo A >$out"; b = "echo B >$out"; k = "echo K >$out"; u = "echo U >$out"; };
  };
}
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        return {each["host"]: each for each in json.loads(self.out)["hosts"]}


@dataclass
class Place:
    """A fleet of four machines, and our programs run on it as people run them."""

    directory: Path
    environment: Mapping[str, str]
    to_plant_in: Programs
    planted: dict[str, Any] = field(default_factory=dict)
    shell: str = '"$@"'

    def run(self, *words: str, **environment: str) -> Ended:
        """Run it by a shell, which may lead its output elsewhere."""
        env = {**self.environment, **environment}
        env.pop("PYTHONUNBUFFERED", None)  # with it nothing is left to be written at the end
        if self.planted:
            env = self.to_plant_in({**env, "PLANTED": json.dumps(self.planted), "PYTHONPATH": str(PLANTING)})
        argv = ["bash", "-c", self.shell, "bash", *words]
        done = subprocess.run(
            argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in out + err, out + err
        return Ended(done.returncode, out, err)

    def nixherd(self, *words: str, **more: str) -> Ended:
        return self.run("nixherd", *words, **more)

    def pyinfra(self, *words: str, **more: str) -> Ended:
        return self.run("pyinfra", "-y", "inventory.py", *words, **more)

    def access(self, access: str) -> None:
        entries = "".join(f"  {name} = {HOST.format(name, KEY, access)};\n" for name in "abku")
        (self.directory / "hosts.nix").write_text(f"{{\n{entries}}}\n")

    @property
    def state(self) -> Path:
        return Path(self.environment["XDG_STATE_HOME"])


@pytest.fixture(scope="session")
def to_plant_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """As `programs`, but each run is changed by its `sitecustomize` before it begins."""
    begins = {**os.environ, "PYTHONPATH": str(PLANTING)}  # the variables that Python reads as it starts
    with shared(tmp_path_factory.getbasetemp(), "to-plant-in") as shared_place:

        def planted(environment: dict[str, str]) -> dict[str, str]:
            begun = {**begins, "PATH": environment["PATH"]}
            return {**environment, "PATH": preloaded(shared_place, begun, changed_by="sitecustomize")["PATH"]}

        yield planted


@pytest.fixture
def place(tmp_path: Path, programs: Programs, to_plant_in: Programs) -> Place:
    directory = tmp_path / "fleet"
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "FLEET": str(directory), "TERM": "dumb"}
    made = Place(directory, programs({**os.environ, **nix_cli.environment(), **home}), to_plant_in)
    made.access("")
    return made


BAD = {"a": "ValueError", "k": "KeyError", "u": "UnicodeError"}
"""the hosts on which a fault is planted, and which; `b` is well"""


def deploy(place: Place) -> Ended:
    place.access('access = "push-closure";')
    return place.nixherd("deploy", "--json", "--confirm-deadline", "12", "--max-fail", "4")


def reboot(place: Place) -> Ended:
    return place.nixherd("reboot", "--json", "--max-fail", "4")


def looked_at(place: Place) -> Ended:
    """A machine that could not be asked is not reached, with the fault as its reason."""
    ended = place.nixherd("status", "--no-eval", "--no-vm", "--json")
    reach = {row["host"]: row["reach"] for row in json.loads(ended.out)["hosts"]}
    assert {host for host, each in reach.items() if "this is a mistake in nixherd" in (each["why"] or "")} == {*BAD}
    assert reach["b"]["answered"], reach["b"]
    return ended


def alone(script: str) -> str:
    """The same in a mount namespace of its own."""
    return f"""mkdir -p "$XDG_STATE_HOME"; exec unshare --mount bash -c '{script}' bash "$@" """
