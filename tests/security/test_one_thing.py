"""One wrong thing stops one thing: a fault of our own, a disk that is full, an output that nobody reads, odd words."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nixherd.errors import FAILURES, UNFORESEEN, FleetError, Unforeseen
from nixherd.exits import Exit, exit_of
from nixherd.faults import worded
from tests import nix_cli
from tests.security.planting.sitecustomize import ERRORS, guarded

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PLANTING = Path(__file__).with_name("planting")
OURS = [path for part in ("nixherd", "operations", "facts", "deploys") for path in sorted((ROOT / part).rglob("*.py"))]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@a"

HOST = (
    '{{ hostname = "{0}"; user = "root"; publicKey = "{1}"; configurationFile = ./flake.nix; homeFile = ./flake.nix; '
    "{2} }}"
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
    planted: dict[str, Any] = field(default_factory=dict)

    def run(self, *words: str, shell: str = '"$@"', **environment: str) -> Ended:
        """Run it by a shell, which may lead its output elsewhere."""
        env = {**self.environment, **environment}
        if self.planted:
            env |= {"PLANTED": json.dumps(self.planted), "PYTHONPATH": str(PLANTING)}
        argv = ["bash", "-c", shell, "bash", *words]
        done = subprocess.run(
            argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in out + err, out + err
        return Ended(done.returncode, out, err)

    def nixherd(self, *words: str, **more: str) -> Ended:
        return self.run(str(Path(sys.executable).with_name("nixherd")), *words, **more)

    def pyinfra(self, *words: str, **more: str) -> Ended:
        return self.run(str(Path(sys.executable).with_name("pyinfra")), "-y", "inventory.py", *words, **more)

    def access(self, access: str) -> None:
        entries = "".join(f"  {name} = {HOST.format(name, KEY, access)};\n" for name in "abku")
        (self.directory / "hosts.nix").write_text(f"{{\n{entries}}}\n")

    @property
    def state(self) -> Path:
        return Path(self.environment["XDG_STATE_HOME"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    directory = tmp_path / "fleet"
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "FLEET": str(directory), "TERM": "dumb"}
    made = Place(directory, {**os.environ, **nix_cli.environment(), **home})
    made.access("")
    return made


# A fault of our own


def test_one_name_for_all_that_may_go_wrong() -> None:
    """Who catches FleetError and OSError together catches what nobody foresaw as well."""
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Tuple):
                names = {each.id for each in node.type.elts if isinstance(each, ast.Name)}
                assert not {"FleetError", "OSError"} <= names, f"{path}:{node.lineno}: catch FAILURES"


def test_what_nobody_foresaw_is_no_word_of_nothing_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for error in ERRORS.values():
        fault = worded(error, "web01: copying")
        assert isinstance(fault, Unforeseen)
        assert isinstance(error, FAILURES)
        assert {exit_of(fault, changed=changed) for changed in (True, False)} == {Exit.FAILED}
        assert str(fault).startswith(f"web01: copying: {type(error).__name__}: ")
        assert str(fault).endswith(f" please report it with its details in {tmp_path}/nixherd/faults.log")
    log = tmp_path / "nixherd" / "faults.log"
    assert (log.stat().st_mode & 0o777, log.read_text().count("ValueError: planted")) == (0o600, 1)
    known = FleetError("it is off")
    assert worded(known, "x") is known
    assert not issubclass(KeyboardInterrupt, UNFORESEEN)


BAD = {"a": "ValueError", "k": "KeyError", "u": "UnicodeError"}
"""the hosts on which a fault is planted, and which; `b` is well"""


@dataclass(frozen=True)
class Scenario:
    """What reaches a place: the command, `host`, an expression for whose turn it is there, and the outcome of a host on
    which its fault was planted, as the report has it.

    Without `host` it is one command that fails. `harmless`: nothing fails, because what was ended was work done ahead,
    and is done where it is needed, or what nobody depends on.
    """

    act: Callable[[Place], Ended]
    host: str | None = None
    outcome: str | None = None
    harmless: bool = False
    status: int = 1


def deploy(place: Place) -> Ended:
    place.access('access = "push-closure";')
    return place.nixherd("deploy", "--json", "--confirm-deadline", "12", "--max-fail", "4")


def reboot(place: Place) -> Ended:
    return place.nixherd("reboot", "--json", "--max-fail", "4")


def publish(place: Place) -> Ended:
    made = nix_cli.nix("key", "generate-secret", "--key-name", "cache")
    key = place.directory.parent / "key"
    key.write_text(made)
    key.chmod(0o600)
    return place.nixherd("publish", "--json", "--allow-dirty", "--key-file", str(key), str(key.with_name("cache")))


def change_files(place: Place) -> Ended:
    """What every command that writes the fleet's files does."""
    script = """
from pathlib import Path; import sys
from nixherd.changeset import changing
from nixherd.cli import main
from nixherd.cli.front import pass_front
@main.cli.command()
@pass_front
def touch(front):
    with changing(front.root) as changeset:
        changeset.stage("hosts.nix", b"{ }")
        changeset.publish({"hosts.nix": (front.root / "hosts.nix").read_bytes()}, "x", commit=False, say=print)
main.main(["touch"])
"""
    before = (place.directory / "hosts.nix").read_text()
    ended = place.run(sys.executable, "-c", script)
    assert (place.directory / "hosts.nix").read_text() == before
    return ended


def complete(place: Place) -> Ended:
    words = {"_NIXHERD_COMPLETE": "bash_complete", "COMP_WORDS": "nixherd vm start ", "COMP_CWORD": "3"}
    return place.nixherd(**words)


OWN = "(locals().get('own') or self.own).id"
SCENARIOS = {
    "facts/base.py:_guarded.guarded:1": Scenario(
        lambda place: fact(place, "facts.nixos.Running"), "dict(line.split('=', 1) for line in output)['hostname']"
    ),
    "nixherd/changeset.py:Changeset._finish:1": Scenario(change_files),
    "nixherd/cli/main.py:run:1": Scenario(lambda place: place.nixherd("check")),
    "nixherd/cli/parameters.py:_completions:1": Scenario(complete, harmless=True, status=0),
    "nixherd/cli/publishing.py:_built:1": Scenario(publish, "host_id"),
    "nixherd/cli/publishing.py:_built:2": Scenario(publish, "about.host_id"),
    "nixherd/cli/rollout.py:_despite:1": Scenario(reboot, "what == 'the report' and 'a'", harmless=True, status=0),
    "nixherd/cli/rollout.py:_run.child:1": Scenario(reboot),
    "nixherd/connectors/fleet.py:FleetConnector.connect:1": Scenario(deploy, "self.fleet_host.id", "unreachable"),
    "nixherd/connectors/fleet.py:FleetConnector._report:1": Scenario(
        deploy, "self.fleet_host.id", harmless=True, status=0
    ),
    "nixherd/connectors/fleet.py:FleetConnector._ask:1": Scenario(
        lambda place: fact(place, "facts.proxmox.VmStatus"), "self.fleet_host.id"
    ),
    "nixherd/connectors/inventory.py:inventory_beside:1": Scenario(lambda place: place.pyinfra("exec", "--", "true")),
    "nixherd/deploying/run.py:DeployRun.turn:1": Scenario(deploy, OWN, "failed"),
    "nixherd/evaluation.py:_try:1": Scenario(deploy, "min({*host_ids} & {*'aku'}, default=None)", "failed"),
    "nixherd/session.py:ahead.quietly:1": Scenario(deploy, "'a'", harmless=True, status=0),
    "nixherd/session.py:Session.once:1": Scenario(deploy, "key[1] if key[0] == 'claim' else None", "failed"),
    "operations/activating.py:_Follower._look:1": Scenario(deploy, OWN, "unknown", status=5),
    "operations/activating.py:_Follower._say:1": Scenario(deploy, OWN, "rolled back"),
    "operations/activating.py:_Follower._disproved:1": Scenario(deploy, OWN, "rolled back"),
    "operations/deployment.py:_copy.act:1": Scenario(deploy, OWN, "failed"),
    "operations/rebooting.py:reboot_and_prove:1": Scenario(reboot, OWN, "unknown", status=5),
    "operations/steps.py:do.step:1": Scenario(deploy, "host.data.host_id", "failed"),
    "operations/steps.py:decide:1": Scenario(deploy, "host.data.host_id", "failed"),
}


def fact(place: Place, name: str) -> Ended:
    return place.pyinfra("fact", name)


def places() -> Iterator[str]:
    for path in OURS:
        for found, _ in guarded(ast.parse(path.read_text()), str(path.relative_to(ROOT))):
            yield found


def planted(line: str, error: str) -> bool:
    return f"{type(ERRORS[error]).__name__}: " in line and "planted" in line


@pytest.mark.parametrize("where", [*places()])
def test_a_fault_ends_one_host(where: str, place: Place) -> None:
    """ValueError, KeyError and UnicodeError below each place: one line and one host each, and the others go on."""
    assert where in SCENARIOS, f"say in SCENARIOS what reaches {where}"
    scenario = SCENARIOS[where]
    if scenario.host is None:
        for kind in ERRORS:
            place.planted = {"place": where, "host": "'a'", "errors": {"a": kind}}
            ended = scenario.act(place)
            assert ended.status == scenario.status, ended.err
            if not scenario.harmless:
                [line] = [line for line in ended.err.splitlines() if planted(line, kind)]
                assert "this is a mistake in nixherd" in line
        return
    place.planted = {"place": where, "host": scenario.host, "errors": BAD}
    ended = scenario.act(place)
    assert ended.status == scenario.status, ended.err
    log = (place.state / "nixherd" / "faults.log").read_text()
    assert "Traceback" in log
    if scenario.harmless:
        return
    document = json.loads(ended.out) if ended.out.startswith("{") else {}
    for host, kind in BAD.items():
        [line] = [line for line in ended.err.splitlines() if planted(line, kind)]
        assert "this is a mistake in nixherd" in line
        assert re.search(rf"\b{host}\b", line)
        assert f"{type(ERRORS[kind]).__name__}: " in log
        if "published" in document:
            assert (sorted(document["failed"]), list(document["published"])) == (sorted(BAD), ["b"])
        elif document:
            assert ended.hosts[host]["outcome"] == scenario.outcome, ended.hosts[host]
            assert planted(ended.hosts[host]["why"], kind)
            assert ended.hosts["b"]["outcome"] in ("deployed", "rebooted"), ended.hosts["b"]
        else:  # a fact
            assert "b" in re.findall(r"\[(\w+)\] (?:Loaded|Connected)", ended.err), ended.err
