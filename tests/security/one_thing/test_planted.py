"""A fault that nobody foresaw ends one host or one command, and nothing else."""

import ast
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.base.errors import FAILURES, UNFORESEEN, Exit, FleetError, Unforeseen, exit_of
from nixherd.base.terminal import worded
from tests import nix_cli
from tests.nixherd.cli.conftest import fleet  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator, dev, emulator, started  # noqa: F401  (fixtures)
from tests.nixherd.trust.secrets.keys import key
from tests.security.one_thing.conftest import BAD, ROOT, Ended, Place, deploy, looked_at, reboot
from tests.security.planting.sitecustomize import ERRORS, guarded

OURS = [path for part in ("nixherd", "operations", "facts", "deploys") for path in sorted((ROOT / part).rglob("*.py"))]


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


def build(place: Place) -> Ended:
    return place.nixherd("build", "--json")


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
    ended = place.run("nixherd-python", "-c", script)
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
    return place.run("pyinfra", *words)


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


def edit_a_secret(place: Place) -> Ended:
    """What somebody has written is kept, encrypted, whatever hinders its being published."""
    (place.directory / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('anybody').recipient}\n")
    editor = place.directory.parent / "editor"
    editor.write_text("#!/bin/sh\necho 'token: hunter2' > \"$1\"\n")
    editor.chmod(0o755)
    ended = place.nixherd("secrets", "edit", "new.yaml", "--no-commit", EDITOR=str(editor))
    [kept] = (place.state / "nixherd" / "fleet" / "edited").iterdir()
    assert f"what was written is kept, encrypted, in {kept}" in ended.err
    assert "ENC[" in kept.read_text()
    kept.unlink()
    assert not (place.directory / "new.yaml").exists()
    return ended


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


def deploy_a_flake(place: Place) -> Ended:
    """Hosts of the flake's outputs, of which nixherd.nix says what hosts.nix did."""
    beside = place.directory / "nixherd.nix"
    beside.write_text("{ useHostsFile = false; hosts = import ./hosts.nix; }")
    try:
        return deploy(place)
    finally:
        beside.unlink()


def rebuild(place: Place) -> Ended:
    return place.nixherd("deploy", "--json", "--max-fail", "4", "--data", "engine=nixos-rebuild")


def status(place: Place) -> Ended:
    """What is not known of a guest is said of that one, and its machine is shown."""
    (place.directory / "vms").mkdir(exist_ok=True)
    (place.directory / "vms" / "definitions.nix").write_text("""{
      proxmox = { host = "127.0.0.9"; node = "prom"; };
      managed.a = { vmid = 100; cores = 1; memory = 1024; disk = "8G"; storage = "local"; nixosConfig = "a"; }; }""")
    ended = place.nixherd("status", "--no-eval", "--json")
    shown = {row["host"]: row for row in json.loads(ended.out)["hosts"]}
    assert "this is a mistake in nixherd" in shown["a"]["unknown"]["guest"]
    assert "guest" not in shown["b"]["unknown"]
    return ended


def fix(place: Place) -> Ended:
    """What hinders one mend is said of it, and the fleet is looked at again."""
    rules, secret = place.directory / ".sops.yaml", place.directory / "some.yaml"
    names = ("anybody", "somebody")
    rules.write_text(f"creation_rules:\n  - age: {key(names[0]).recipient}\n")
    if not secret.exists():
        planted, place.planted = place.planted, {}
        editor = place.directory.parent / "an-editor"
        editor.write_text("#!/bin/sh\necho 'token: hunter2' > \"$1\"\n")
        editor.chmod(0o755)
        ended = place.nixherd("secrets", "edit", "some.yaml", "--no-commit", EDITOR=str(editor))
        assert ended.status == 0, ended.err
        place.planted = planted
    rules.write_text(f"creation_rules:\n  - age: {','.join(key(name).recipient for name in names)}\n")
    ended = place.nixherd("fix", "b", "--only", "re-key", "--yes", "--json")
    document = json.loads(ended.out)
    assert {row["outcome"] for row in document["mends"]} == {"failed"}
    return ended


HOST_RUN = "(locals().get('host_run') or self.host_run).id"


SERVE = """
import signal, subprocess, sys
words = ("serve", "--no-eval", "--no-vm", "--listen", "127.0.0.1:0", "--every", "3600")
child = subprocess.Popen(["nixherd", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
for line in child.stderr:
    print(line, end="", file=sys.stderr)
    if "looked at" in line or "mistake" in line:
        break
child.send_signal(signal.SIGINT)
sys.exit(child.wait(60))
"""


def serve(place: Place) -> Ended:
    """What could not be gathered is a line, and it goes on to serve."""
    return place.run("nixherd-python", "-c", SERVE)


def evaluated_status(place: Place) -> Ended:
    """What could not be evaluated, or read, is unknown of these hosts, with the fault as its reason."""
    ended = place.nixherd("status", "--json", "--no-vm")
    sections = {row["host"]: row["unknown"] for row in json.loads(ended.out)["hosts"]}
    told = {
        (host, section)
        for host, unknown in sections.items()
        for section, why in unknown.items()
        if "this is a mistake in nixherd" in why
    }
    assert told in ({(host, "system") for host in BAD}, {(host, "recipients") for host in sections}), sections
    return ended


SCENARIOS = {
    "facts/base.py:_guarded.guarded:1": Scenario(
        lambda place: fact(place, "facts.nixos.Running"), "dict(line.split('=', 1) for line in output)['hostname']"
    ),
    "nixherd/fleet/changeset.py:Changeset._finish:1": Scenario(change_files),
    "nixherd/cli/fix.py:_attempt:1": Scenario(fix),
    "nixherd/cli/flake.py:_built:1": Scenario(build, "host_id", "failed"),
    "nixherd/cli/flake.py:_built:2": Scenario(build, "host_id", "failed"),
    "nixherd/cli/main.py:run:1": Scenario(lambda place: place.nixherd("check", "--only", "merge")),
    "nixherd/cli/completion.py:quietly:1": Scenario(complete, harmless=True, status=0),
    "nixherd/cli/publish.py:_built:1": Scenario(publish, "host_id"),
    "nixherd/cli/publish.py:_built:2": Scenario(publish, "config.host_id"),
    "nixherd/cli/publish.py:publish:1": Scenario(publish, "host_id"),
    "nixherd/cli/secrets_edit.py:_publish:1": Scenario(edit_a_secret),
    "nixherd/cli/run_pyinfra.py:despite:1": Scenario(reboot, "what == 'stdout' and 'a'", harmless=True),
    "nixherd/cli/run_pyinfra.py:run_pyinfra.child:1": Scenario(reboot),
    "nixherd/cli/retire.py:_publish:1": Scenario(retire),
    "nixherd/cli/retire.py:_require_nothing_left:1": Scenario(retire_again),
    "nixherd/cli/gathering.py:_evaluated:1": Scenario(evaluated_status, "id", harmless=True, status=1),
    "nixherd/cli/looking.py:_asked:1": Scenario(looked_at, "host.id", harmless=True),
    "nixherd/cli/looking.py:_asked:2": Scenario(looked_at, "host.id", harmless=True),
    "nixherd/cli/gathering.py:_secrets:1": Scenario(evaluated_status, harmless=True, status=1),
    "nixherd/overview/shown.py:Shown.look:1": Scenario(serve, status=0),
    "nixherd/overview/guests.py:_tried:1": Scenario(status, harmless=True, status=1),
    "nixherd/pyinfra_glue/fleet.py:FleetConnector.connect:1": Scenario(deploy, "self.fleet_host.id", "unreachable"),
    "nixherd/pyinfra_glue/reaching.py:MachineConnector._report:1": Scenario(
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
    "nixherd/deploy/rollout.py:Rollout.turn:1": Scenario(deploy, HOST_RUN, "failed"),
    "nixherd/nix/evaluator.py:Evaluator._try:1": Scenario(
        deploy, "min({*host_ids} & {*'aku'}, default=None)", "failed"
    ),
    "nixherd/fleet/completing.py:_host:1": Scenario(deploy_a_flake, "host_id", "failed"),
    "nixherd/gate/tools.py:_timed:1": Scenario(check, harmless=True, status=1),
    "nixherd/locate/keyscan.py:_shown:1": Scenario(keys, "host.id"),
    "nixherd/base/process.py:_Reader._pass_on:1": Scenario(deploy, "'a'", harmless=True, status=0),
    "nixherd/proxmox/guest/adopt.py:_parting:1": Scenario(retire_with_a_guest),
    "nixherd/trust/rehearsal.py:_wrong_hosts:1": Scenario(retire, harmless=True, status=0),
    "nixherd/base/waiting.py:ahead.quietly:1": Scenario(deploy, "'a'", harmless=True, status=0),
    "nixherd/deploy/activate.py:_Activation._look:1": Scenario(deploy, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/activate.py:_Activation._send_word:1": Scenario(deploy, HOST_RUN, "rolled back"),
    "nixherd/deploy/activate.py:_Activation._disproved:1": Scenario(deploy, HOST_RUN, "rolled back"),
    "nixherd/deploy/copy.py:copy:1": Scenario(deploy, HOST_RUN, "failed"),
    "nixherd/deploy/plan.py:_to_come:1": Scenario(deploy, "host_id", harmless=True, status=0),
    "nixherd/deploy/program.py:note_too:1": Scenario(deploy_a_commit, HOST_RUN, harmless=True, status=0),
    "nixherd/deploy/reboot.py:reboot_and_prove:1": Scenario(reboot, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/reboot.py:reboot_and_prove:2": Scenario(reboot, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/build.py:rebuild:1": Scenario(rebuild, HOST_RUN, "failed"),
    "nixherd/deploy/build.py:_ask_again:1": Scenario(rebuild, HOST_RUN, "unknown", status=5),
    "nixherd/deploy/running.py:try_running:1": Scenario(reboot, "machine.id", "unknown", status=5),
    "nixherd/pyinfra_glue/operation.py:_make:1": Scenario(deploy, "host.data.host_id", "failed"),
    "nixherd/pyinfra_glue/operation.py:operation.decorate.commands:1": Scenario(deploy, "host.data.host_id", "failed"),
    "nixherd/pyinfra_glue/engine.py:waves:1": Scenario(deploy, "each.data.host_id", harmless=True, status=0),
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
            assert ended.hosts["b"]["outcome"] in ("deployed", "rebooted", "built"), ended.hosts["b"]
        else:  # a fact
            assert "b" in re.findall(r"\[(\w+)\] (?:Loaded|Connected)", ended.err), ended.err
