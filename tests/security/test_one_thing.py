"""One wrong thing stops one thing: a fault of our own, a disk that is full, an output that nobody reads, odd words."""

import ast
import contextlib
import importlib
import inspect
import itertools
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.base import Fact
from nixherd import process
from nixherd.cli.main import run
from nixherd.deploy import protocol as activation
from nixherd.deploy.journal import entries
from nixherd.errors import FAILURES, UNFORESEEN, ApiError, DeadlineExceeded, FleetError, ProcessFailed, Unforeseen
from nixherd.exit_codes import Exit, exit_of
from nixherd.faults import worded
from nixherd.fleet.models import GuestType
from nixherd.nix.log import BuildProgress
from nixherd.proxmox import wire
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.steps import Start
from nixherd.proxmox.wire import Tasks, answer
from tests import nix_cli
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.properties import examples
from tests.security.planting.sitecustomize import ERRORS, guarded

ROOT = Path(__file__).parents[2]
PLANTING = Path(__file__).with_name("planting")
OURS = [path for part in ("nixherd", "operations", "facts", "deploys") for path in sorted((ROOT / part).rglob("*.py"))]
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
    planted: dict[str, Any] = field(default_factory=dict)
    shell: str = '"$@"'

    def run(self, *words: str, **environment: str) -> Ended:
        """Run it by a shell, which may lead its output elsewhere."""
        env = {**self.environment, **environment}
        env.pop("PYTHONUNBUFFERED", None)  # with it nothing is left to be written at the end
        if self.planted:
            env |= {"PLANTED": json.dumps(self.planted), "PYTHONPATH": str(PLANTING)}
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


@pytest.fixture
def place(tmp_path: Path, programs: Callable[[dict[str, str]], dict[str, str]]) -> Place:
    directory = tmp_path / "fleet"
    directory.mkdir()
    (directory / "flake.nix").write_text(FLAKE)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "FLEET": str(directory), "TERM": "dumb"}
    made = Place(directory, programs({**os.environ, **nix_cli.environment(), **home}))
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


def committed(place: Place) -> None:
    who = (("config", "user.name", "a"), ("config", "user.email", "a@b"))
    for words in (("init", "-q"), *who, ("add", "."), ("commit", "-qm", "x", "--allow-empty")):
        git = ("git", *words)
        subprocess.run(git, cwd=place.directory, env=dict(place.environment), check=True, capture_output=True)


def deploy_a_commit(place: Place) -> Ended:
    """So that there is a revision to note, which these machines do not."""
    place.access('access = "push-closure";')
    committed(place)
    ended = place.nixherd("deploy", "--json", "--confirm-deadline", "12", "--max-fail", "4")
    assert {row["outcome"] for row in ended.hosts.values()} == {"deployed"}
    assert all(row["noted"] is None for row in ended.hosts.values())
    assert {host for host, row in ended.hosts.items() if "this is a mistake in nixherd" in row["unnoted"]} == {*BAD}
    return ended


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
from nixherd.fleet.changeset import changing
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


def keys(place: Place) -> Ended:
    """What machines show is a table, in which a host that could not be asked says why."""
    (place.directory / "secrets").mkdir(exist_ok=True)
    (place.directory / "secrets" / ".sops.yaml").write_text("creation_rules: []\n")
    shown = place.nixherd("secrets", "status", "--machines", "--json")
    rows = {row["host"]: row["machine"] for row in json.loads(shown.out)["hosts"]}
    assert "refused" in rows.pop("b")
    return Ended(shown.status, "", "\n".join(f"{host}: {why}" for host, why in rows.items()) + "\n[b] Loaded")


def node(place: Place) -> Ended:
    (place.directory / "vms").mkdir(exist_ok=True)
    (place.directory / "vms" / "definitions.nix").write_text('{ proxmox = { host = "127.0.0.9"; node = "prom"; }; }\n')
    words = ("-y", "nodes.py", "--limit", "prom", "deploys/proxmox_host.py")
    return place.run(str(Path(sys.executable).with_name("pyinfra")), *words)


def row(place: Place) -> Ended:
    """A row that changes something, of an operation made by our decorator."""
    file = place.directory.parent / "row.py"
    file.write_text("""
from nixherd.pyinfra_glue.operation import Change, operation

@operation()
def touch():
    return Change("touch it", lambda: None)

touch()
""")
    return place.pyinfra(str(file))


def retire(place: Place) -> Ended:
    place.access("")  # whom the run before has taken out
    return place.nixherd("retire", "a", "--yes", "--no-commit")


def retire_again(place: Place) -> Ended:
    place.access("")
    committed(place)
    ended = place.nixherd("retire", "a", "--yes")
    assert ended.status == 0, ended.err
    return place.nixherd("retire", "a", "--destroy", "100", "--yes")


def retire_with_a_guest(place: Place) -> Ended:
    (place.directory / "vms").mkdir(exist_ok=True)
    definitions = """{ proxmox = { host = "127.0.0.9"; node = "prom"; };
      managed.a = { vmid = 100; cores = 1; memory = 1024; disk = "8G"; storage = "local"; nixosConfig = "a"; }; }"""
    (place.directory / "vms" / "definitions.nix").write_text(definitions)
    return retire(place)


def complete(place: Place) -> Ended:
    words = {"_NIXHERD_COMPLETE": "bash_complete", "COMP_WORDS": "nixherd vm start ", "COMP_CWORD": "3"}
    return place.nixherd(**words)


def check(place: Place) -> Ended:
    """The gate, of which a tool comes to grief."""
    ended = place.nixherd("check", "--only", "definitions", "--only", "merge", "--json")
    tools = {each["name"]: each for each in json.loads(ended.out)["tools"]}
    for name in ("definitions", "merge"):
        assert tools[name]["status"] == "unknown"
        assert "this is a mistake in nixherd" in tools[name]["reason"]
    return ended


HOST_RUN = "(locals().get('host_run') or self.host_run).id"
SCENARIOS = {
    "facts/base.py:_guarded.guarded:1": Scenario(
        lambda place: fact(place, "facts.nixos.Running"), "dict(line.split('=', 1) for line in output)['hostname']"
    ),
    "nixherd/fleet/changeset.py:Changeset._finish:1": Scenario(change_files),
    "nixherd/cli/main.py:run:1": Scenario(lambda place: place.nixherd("check", "--only", "merge")),
    "nixherd/cli/parameters.py:_completions:1": Scenario(complete, harmless=True, status=0),
    "nixherd/cli/publish.py:_built:1": Scenario(publish, "host_id"),
    "nixherd/cli/publish.py:_built:2": Scenario(publish, "about.host_id"),
    "nixherd/cli/publish.py:publish:1": Scenario(publish, "host_id"),
    "nixherd/cli/run_pyinfra.py:despite:1": Scenario(reboot, "what == 'stdout' and 'a'", harmless=True),
    "nixherd/cli/run_pyinfra.py:run_pyinfra.child:1": Scenario(reboot),
    "nixherd/cli/retire.py:_publish:1": Scenario(retire),
    "nixherd/cli/retire.py:_require_nothing_left:1": Scenario(retire_again),
    "nixherd/pyinfra_glue/fleet.py:FleetConnector.connect:1": Scenario(deploy, "self.fleet_host.id", "unreachable"),
    "nixherd/pyinfra_glue/fleet.py:FleetConnector._report:1": Scenario(
        deploy, "self.fleet_host.id", harmless=True, status=0
    ),
    "nixherd/pyinfra_glue/fleet.py:FleetConnector._ask:1": Scenario(
        lambda place: fact(place, "facts.proxmox.VmStatus"), "self.fleet_host.id"
    ),
    "nixherd/pyinfra_glue/fleet.py:FleetConnector._forget_known_hosts:1": Scenario(
        deploy, "self.fleet_host.id", harmless=True, status=0
    ),
    "nixherd/pyinfra_glue/inventory.py:or_end:1": Scenario(lambda place: place.pyinfra("exec", "--", "true")),
    "nixherd/pyinfra_glue/node.py:NodeConnector.connect:1": Scenario(node),
    "nixherd/deploy/run.py:Rollout.turn:1": Scenario(deploy, HOST_RUN, "failed"),
    "nixherd/nix/evaluator.py:Evaluator._try:1": Scenario(
        deploy, "min({*host_ids} & {*'aku'}, default=None)", "failed"
    ),
    "nixherd/gate/tools.py:_timed:1": Scenario(check, harmless=True, status=1),
    "nixherd/locate/keyscan.py:_shown:1": Scenario(keys, "host.id"),
    "nixherd/process.py:_Reader._pass_on:1": Scenario(deploy, "'a'", harmless=True, status=0),
    "nixherd/proxmox/guest/adopt.py:_parting:1": Scenario(retire_with_a_guest),
    "nixherd/trust/rehearsal.py:_wrong_hosts:1": Scenario(retire, harmless=True, status=0),
    "nixherd/once.py:ahead.quietly:1": Scenario(deploy, "'a'", harmless=True, status=0),
    "nixherd/deploy/activate.py:_Activation._look:1": Scenario(deploy, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/activate.py:_Activation._send_word:1": Scenario(deploy, HOST_RUN, "rolled back"),
    "nixherd/deploy/activate.py:_Activation._disproved:1": Scenario(deploy, HOST_RUN, "rolled back"),
    "nixherd/deploy/copy.py:copy:1": Scenario(deploy, HOST_RUN, "failed"),
    "nixherd/deploy/plan.py:to_come.configs:1": Scenario(deploy, "host_id", harmless=True, status=0),
    "nixherd/deploy/program.py:note_too:1": Scenario(deploy_a_commit, HOST_RUN, harmless=True, status=0),
    "nixherd/deploy/reboot.py:reboot_and_prove:1": Scenario(reboot, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/running.py:try_running:1": Scenario(
        lambda place: place.nixherd("deploy", "--json", "--max-fail", "4", "--data", "engine=nixos-rebuild"),
        "machine.id",
        "unknown",
        status=5,
    ),
    "nixherd/once.py:_attempt:1": Scenario(deploy, "key if what == 'claiming a host' else None", "failed"),
    "nixherd/pyinfra_glue/operation.py:_make:1": Scenario(deploy, "host.data.host_id", "failed"),
    "nixherd/pyinfra_glue/operation.py:guarded:1": Scenario(deploy, "host.data.host_id", "failed"),
    "nixherd/pyinfra_glue/rollouts.py:waves.found:1": Scenario(deploy, "each.data.host_id", harmless=True, status=0),
}


def fact(place: Place, name: str) -> Ended:
    return place.pyinfra("fact", name)


def places() -> Iterator[str]:
    """Read each of our files that has one; every worker does so as it collects."""
    for path in OURS:
        text = path.read_text()
        if "FAILURES" in text:
            for found, _ in guarded(ast.parse(text), str(path.relative_to(ROOT))):
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
    if scenario.harmless:
        return
    log = (place.state / "nixherd" / "faults.log").read_text()
    assert "Traceback" in log
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


# A disk that is full, or not ours to write


FULL = 'mount -t tmpfs -o size=256k,mode=700 tmpfs "$XDG_STATE_HOME"; "$@"'
READ_ONLY = 'mount --bind "$XDG_STATE_HOME" "$XDG_STATE_HOME"; mount -o remount,bind,ro "$XDG_STATE_HOME"; "$@"'


def alone(script: str) -> str:
    """The same in a mount namespace of its own."""
    return f"""mkdir -p "$XDG_STATE_HOME"; exec unshare --mount bash -c '{script}' bash "$@" """


@pytest.mark.parametrize("act", [deploy, reboot])
@pytest.mark.parametrize(
    "script", [READ_ONLY, FULL.replace('"$@"', 'cat /dev/zero >"$XDG_STATE_HOME/x" 2>/dev/null; "$@"')]
)
def test_without_a_state_directory_nothing_begins(place: Place, script: str, act: Callable[[Place], Ended]) -> None:
    place.shell = alone(script)
    ended = act(place)
    assert (ended.status, ended.out) == (Exit.REMOTE, "")
    [line] = ended.err.splitlines() or [""]
    assert re.search(r"(Read-only file system|No space left on device): .* so nothing was begun; make room", line)


def test_without_a_state_directory_pyinfra_says_one_line(place: Place) -> None:
    place.planted = {"place": "", "host": "", "errors": {}}  # the machines
    place.shell = alone(READ_ONLY)
    for words in (["deploys/deploy.py"], ["deploys/reboot.py"]):
        ended = place.pyinfra(*words)
        assert ended.status == Exit.REMOTE, ended.err
        [line] = [line for line in ended.err.splitlines() if "Read-only" in line]
        assert "nothing was begun" in line
    ended = place.pyinfra("deploys/secrets_check.py", "--limit", "a")
    assert "Read-only" in ended.err or ended.status == 0


@pytest.mark.parametrize(
    ("moment", "status", "outcome", "why"),
    [
        ("copy", Exit.REMOTE, "failed", "the run ended before it was deployed to (at "),
        ("begin", Exit.UNKNOWN, "unknown", "the run ended while it was at activate; the machine decides by itself"),
        ("say", Exit.UNKNOWN, "unknown", "the run ended while it was at keep; the machine decides by itself"),
    ],
)
def test_a_disk_that_fills_up_meanwhile(place: Place, moment: str, status: Exit, outcome: str, why: str) -> None:
    """What cannot be noted is not begun; what was begun is the machine's to decide, and is called unknown."""
    place.planted = {"place": "", "host": "", "errors": {}, "fill": moment}
    ended = deploy(place)
    assert ended.status == (status if moment == "copy" else Exit.UNKNOWN), ended.err
    found = Counter(host["outcome"] for host in ended.hosts.values() if why in host["why"])
    assert found[outcome] == (4 if moment == "copy" else 1), ended.out
    assert {host["outcome"] for host in ended.hosts.values()} <= {outcome, "failed"}  # nothing new was begun
    lines = [line for line in ended.err.splitlines() if "File too large" in line]
    assert (
        sum("journal.jsonl: File too large: it cannot be written, so nothing new is begun" in line for line in lines)
        == 1
    )
    assert all(sum(f" {host}: " in line for line in lines) <= 1 for host in "abku"), ended.err


@pytest.mark.process
def test_a_journal_that_cannot_be_written_keeps_whole_lines(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from nixherd.deploy.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.note("run", hosts=["a"])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 10_000))
for text in ("x" * 50, "y"):
    journal.note("said", "a", text=text)
try:
    journal.note("stage", "a", stage="copy")
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
journal.note("end", "a", outcome="failed")
Journal(Path(sys.argv[1])).note("done", exit=4)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("it cannot be written") == 1
    assert "File too large" in done.stdout or "No space" in done.stdout
    assert [entry["event"] for entry in entries(tmp_path / "run")] == ["run", "end", "done"]


# Outputs


OUTPUTS = {
    "closed stdout": '"$@" >&-',
    "closed stderr": '"$@" 2>&-',
    "both closed": '"$@" >&- 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "head": '"$@" | head -1; exit ${PIPESTATUS[0]}',
    "nobody reads": '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
    "full stderr": '"$@" 2>/dev/full',
}
NAMES = ("state", "id", "who", "why", "left", "failed", "current", "version", "log", "refused", "protocol")
UNWRITABLE = {"full stdout": '"$@" >/dev/full', "both full": '"$@" >/dev/full 2>&1'}
ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "LANG": "C"},
}


@pytest.mark.parametrize("how", ["closed stdout", "all closed", "head", "nobody reads", "full stdout", "ascii", "C"])
def test_a_deployment_decides_the_status_whoever_reads(place: Place, how: str) -> None:
    place.planted = {"place": "", "host": "", "errors": {}}
    place.shell = {**OUTPUTS, **UNWRITABLE}.get(how, '"$@"')
    place.environment = {**place.environment, **ENCODINGS.get(how, {})}
    ended = reboot(place)
    assert ended.status == (Exit.FAILED if how in UNWRITABLE else Exit.DONE), ended.err
    [report] = place.state.glob("nixherd/.deployments/*/report.json")
    assert {each["outcome"] for each in json.loads(report.read_text())["hosts"]} == {"rebooted"}
    if how not in ("closed stdout", "head", "C"):
        return
    place.planted = {"place": "nixherd/pyinfra_glue/operation.py:_make:1", "host": "host.data.host_id", "errors": BAD}
    assert reboot(place).status == Exit.FAILED


@pytest.mark.parametrize("how", [*OUTPUTS, *UNWRITABLE, *ENCODINGS])
def test_a_changed_guest_decides_the_status_whoever_reads(
    how: str,
    fleet: Path,  # noqa: F811
    dev: Emulator,  # noqa: F811
    tmp_path: Path,
    programs: Callable[[dict[str, str]], dict[str, str]],
) -> None:
    token = tmp_path / "token"
    token.write_text(dev.token.to_toml())
    token.chmod(0o600)
    names = {"HOME": str(tmp_path), "FLEET": str(fleet), "PROXMOX_TOKEN_FILE": str(token), "TERM": "dumb"}
    made = Place(fleet, programs({**os.environ, **nix_cli.environment(), **names, **ENCODINGS.get(how, {})}))
    made.shell = {**OUTPUTS, **UNWRITABLE}.get(how, '"$@"')
    unwritable = how in UNWRITABLE
    ended = made.nixherd("vm", "snapshot", "dev", "before", "--description", "Müller → ✓", "--table")
    assert ended.status in ((Exit.FAILED,) if unwritable else (Exit.DONE,)), ended.err
    assert any("snapshot" in each for each in dev.changes())
    assert (made.nixherd("vm", "list", "--table").status == 0) == (not unwritable)


# Words that nothing can be called


@pytest.mark.parametrize(
    "words", [("deploy",), ("plan",), ("reboot",), ("publish",), ("vm", "storage"), ("vm", "start")]
)
def test_odd_words_are_wrong_usage(words: tuple[str, ...], place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    ended = place.nixherd(*words, "a\udcff")
    [line] = ended.err.splitlines()
    assert (ended.status, "is no text" in line) == (Exit.USAGE, True)
    for odd in ("a\0b", "\ud800"):  # which no other program can give us
        assert run([*words, odd]) == Exit.USAGE
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "Traceback" not in err


def test_a_home_that_is_none_is_wrong_usage(place: Place) -> None:
    ended = place.nixherd("--fleet", "~nobody-here/fleet", "check")
    assert (ended.status, ended.err.count("there is no such user here")) == (Exit.USAGE, 1), ended.err


def test_odd_words_are_wrong_usage_of_pyinfra(place: Place) -> None:
    for words in (["exec", "--limit", "a\udcff", "--", "true"], ["deploys/deploy.py", "--data", "x=\udcff"]):
        ended = place.pyinfra(*words)
        assert (ended.status, ended.err.count("is no text")) == (Exit.USAGE, 1), ended.err


def test_odd_words_start_no_program() -> None:
    for odd in ("a\0b", chr(0xD800)):
        with pytest.raises(ProcessFailed, match=r"^true .*cannot be started: no program can be told this"):
            process.run(["true", odd])
    with pytest.raises(ProcessFailed, match=r"^cat: not started: what it is to read holds half a character$"):
        process.run(["cat"], input=f"secret{chr(0xD800)}")


@pytest.mark.parametrize("odd", ["a\0b", chr(0xD800), chr(0xDCFF)], ids=["NUL", "half", "byte"])
def test_odd_words_are_sent_nowhere(odd: str, emulator: Emulator) -> None:  # noqa: F811
    client = emulator.client()
    for call in (
        lambda: client.storage("prom", odd),
        lambda: client.volumes("prom", "nvmeprom", content=odd),
        lambda: client.set_config("prom", 110, {"description": odd}),
        lambda: client.agent_exec("prom", 110, [odd]),
    ):
        with contextlib.suppress(FleetError):
            call()
    assert not any("nvmeprom" in each for each in emulator.changes())


# Answers


KEYS = (
    "vmid type node status data result name upid t pid exited storage volid release version time user starttime key "
    "map pending hardware-address ip-addresses content"
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "UPID:a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS.split()) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
GIVEN: dict[str, Any] = {
    "node": "prom", "vmid": 110, "user": "nixherd@pve", "name": "lab", "storage": "nvmeprom", "path": "/x",
    "argv": ["x"],
    "archive": "local:backup/x", "volid": "local:backup/x", "newid": 111, "source": 9002, "values": {}, "disk": "scsi0",
    "size": "8G", "target": "prom", "pool": "nixherd", "vmids": [110], "delete": True, "description": "",
    "upid": Upid.parse("UPID:a:1:2:3:t:i:u@p:"), "file": Path(__file__), "filename": "x.raw", "url": "https://x/y",
    "sha256": "0", "route": Start.requests[GuestType.QEMU], "names": {"node": "prom", "vmid": 110}, "parameters": {},
}  # fmt: skip


class Answering(Guests, Storages, Tasks, Agent):
    """The calls over answers that are made up."""

    def __init__(self, answers: Iterator[Any]) -> None:
        super().__init__()
        self._answers = answers

    def _asked(self, method: str, path: tuple[object, ...]) -> Any:
        return answer(method, path, next(self._answers))

    def _get(self, *path: object, **_: Any) -> Any:
        return self._asked("GET", path)

    def _post(self, *path: object, **_: Any) -> Any:
        return self._asked("POST", path)

    def _put(self, *path: object, **_: Any) -> Any:
        return self._asked("PUT", path)

    def _delete(self, *path: object, **_: Any) -> Any:
        return self._asked("DELETE", path)

    def _send(self, _body: object, *path: object) -> Any:
        return self._asked("POST", path)


CALLS = sorted(name for name, each in inspect.getmembers(Answering, inspect.isfunction) if not name.startswith("_"))


def read_all(value: Any) -> None:
    """Look at everything that an answer has, as those who asked do: also what is worked out only then."""
    for each in value if isinstance(value, tuple) else (value,):
        repr(each)
        json.dumps(each, default=str)
        for name, attribute in inspect.getmembers(type(each)):
            if isinstance(attribute, (property, cached_property)) and type(each).__module__.startswith("nixherd."):
                getattr(each, name)


@pytest.mark.parametrize("name", CALLS)
@given(answers=st.lists(JUNK, min_size=1, max_size=3))
@examples(60)
def test_whatever_the_server_answers_is_an_error_of_that_call(name: str, answers: list[Any]) -> None:
    client = Answering(itertools.cycle(answers))
    method = getattr(client, name)
    parameters = inspect.signature(method).parameters.values()
    arguments = {each.name: GIVEN[each.name] for each in parameters if each.default is inspect.Parameter.empty}
    try:
        read_all(method(**arguments, **({"timeout": 0} if name == "agent_exec" else {})))
    except (ApiError, DeadlineExceeded) as error:
        named = re.search(r"(GET|POST|PUT|DELETE) /|UPID|in the guest: not done", str(error))
        if not named:
            raise


@given(st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000))
def test_whatever_is_on_the_wire_is_an_error(body: bytes) -> None:
    with contextlib.suppress(ApiError):
        wire.data_of("GET", "/x", body)
    for status in (400, 500, 595, 302):
        assert isinstance(wire.error_of("GET", "/x", status, "", body, "u@pve!t"), ApiError)


@given(st.text(max_size=200) | st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=12))).map(
    lambda rows: "\n".join(f"{key}={value}" for key, value in rows)
))  # fmt: skip
def test_whatever_a_machine_says_is_a_standing_or_an_error(text: str) -> None:
    with contextlib.suppress(FleetError):
        activation.parse(text)


FACTS = [
    each
    for module in pkgutil.iter_modules([str(ROOT / "facts")])
    for each in vars(importlib.import_module(f"facts.{module.name}")).values()
    if isinstance(each, type) and issubclass(each, Fact) and "abstract" not in vars(each)
]


@given(
    st.lists(
        st.text(max_size=30) | st.sampled_from(["current=x", "1 2 3", "{}", "[]", "null", "a-1-link /x y"]), max_size=6
    )
)
def test_whatever_a_machine_says_is_a_fact_or_an_error_of_it(lines: list[str]) -> None:
    assert len(FACTS) > 20
    for each in FACTS:
        with contextlib.suppress(FactProcessError):
            each().process(lines)


@given(st.lists(st.text(max_size=40) | JUNK.map(json.dumps).map(lambda text: f"@nix {text}"), max_size=8))
def test_whatever_nix_logs_is_progress_or_nothing(lines: list[str]) -> None:
    progress = BuildProgress()
    for line in lines:
        progress.feed(line)
