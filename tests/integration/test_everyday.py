"""What is done to machines on any day, by one command: exec, ssh, fact, generations, rollback, gc."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployed import OURS, Fleet

pytestmark = pytest.mark.slow


def told(fleet: Fleet, *words: str, status: int = 0) -> Any:
    ended = fleet.lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', "nixherd", *words, check=False)
    assert ended.status == status, ended.output
    return json.loads(ended.output)


def test_a_command_runs_on_all_and_each_says_its_own(fleet: Fleet) -> None:
    document = told(fleet, "exec", *OURS, "--json", "--", "cat /proc/sys/kernel/hostname; echo aside >&2")
    assert {
        row["host"]: (row["outcome"], row["status"], row["stdout"], row["stderr"]) for row in document["hosts"]
    } == {host: ("done", 0, host, "aside") for host in OURS}
    shown = fleet.lab.run("nixherd", "exec", "dev", "dev2", "--table", "--", "printf", "%s\n", "a  b", "$HOME").output
    assert [line for line in shown.splitlines() if "|" in line] == [
        *("dev  | a  b", "dev  | $HOME"),
        *("dev2 | a  b", "dev2 | $HOME"),
    ]


def test_a_command_that_fails_fails_that_machine(fleet: Fleet) -> None:
    document = told(
        fleet, "exec", "dev", "dev2", "--json", "--", "test $(cat /proc/sys/kernel/hostname) = dev", status=1
    )
    rows = {row["host"]: row for row in document["hosts"]}
    assert (rows["dev"]["outcome"], rows["dev"]["status"]) == ("done", 0)
    assert (rows["dev2"]["outcome"], rows["dev2"]["status"]) == ("failed", 1)
    assert rows["dev2"]["why"] == "dev2: the command ended with status 1"
    [row] = told(fleet, "exec", "dev", "--json", "--", "echo before; exit 7", status=1)["hosts"]
    assert (row["status"], row["stdout"]) == (7, "before")
    [row] = told(fleet, "exec", "dev", "--json", "--", "if", status=1)["hosts"]
    assert (row["outcome"], row["status"]) == ("failed", None)
    assert "did not come to its end" in row["why"]


def test_as_root_and_no_longer_than_told(fleet: Fleet) -> None:
    [row] = told(fleet, "exec", "dev", "--sudo", "--json", "--", "id -un")["hosts"]
    assert row["stdout"] == "root"
    [row] = told(fleet, "exec", "dev", "--deadline", "2", "--json", "--", "sleep 30", status=5)["hosts"]
    assert (row["outcome"], row["status"]) == ("unknown", None)
    assert "is not known" in row["why"]


def test_who_does_not_answer_is_unreachable(fleet: Fleet) -> None:
    [row] = told(fleet, "exec", "doc1", "--json", "--", "true", status=4)["hosts"]
    assert (row["outcome"], row["status"]) == ("unreachable", None)
    assert told(fleet, "generations", "doc1", "--json", status=4) == []


def test_ssh_goes_where_it_answers_by_the_pinned_key(fleet: Fleet) -> None:
    ended = fleet.lab.run("nixherd", "ssh", "dev", "--", "hostname; exit 3", check=False)
    assert (ended.status, ended.output.splitlines()[-1]) == (3, "dev")
    config = fleet.lab.run("sh", "-c", "cat $HOME/.local/state/nixherd/*/ssh/dev/config").output
    assert "StrictHostKeyChecking yes" in config


def test_other_programs_are_told_of_every_machine(fleet: Fleet) -> None:
    config = fleet.lab.state / "ssh_config"
    ended = fleet.lab.run(
        "sh",
        "-c",
        f"nixherd ssh-config --find dev2 dev3 2>/dev/null >{config} && ssh -F {config} -o BatchMode=yes dev2 hostname",
    )
    assert ended.output == "dev2\n"
    assert "Host dev3\n" in config.read_text()
    known = next(Path(line.split()[1]) for line in config.read_text().splitlines() if "UserKnownHostsFile" in line)
    assert known.read_text().split()[0] == known.name == "dev2"
    fleet.lab.run("nixherd", "ssh-config", "dev3")
    fleet.lab.run("ssh", "-F", str(config), "-o", "BatchMode=yes", "dev2", "true")  # whom it was not about this time


def test_who_is_enrolled_is_left_alone(fleet: Fleet) -> None:
    head = fleet.head
    [row] = told(fleet, "enroll", "dev", "--json")["hosts"]
    assert (row["outcome"], fleet.head) == ("unchanged", head)


def test_facts_are_told_by_host(fleet: Fleet) -> None:
    rows = told(fleet, "fact", "dev", "dev2", "--fact", "facts.nixos.CurrentSystem", "--json")["hosts"]
    assert {row["host"]: row["facts"]["facts.nixos.CurrentSystem"]["hostname"] for row in rows} == {
        "dev": "dev",
        "dev2": "dev2",
    }
    [row] = told(fleet, "fact", "doc1", "--fact", "facts.nixos.CurrentSystem", "--json", status=4)["hosts"]
    assert (row["outcome"], row["facts"]) == ("unreachable", {})


def test_generations_and_back_again(fleet: Fleet) -> None:
    fleet.deploy("dev")
    fleet.change("dev", "the next one")
    fleet.deploy("dev")
    newest, older, *_ = told(fleet, "generations", "dev", "--json")
    assert newest["current"]
    assert newest["path"] == fleet.machine("dev").current
    planned = told(fleet, "rollback", "dev", "--dry-run", "--json")
    assert [row["outcome"] for row in planned["hosts"]] == ["planned"]
    assert fleet.machine("dev").current == newest["path"]
    document = told(fleet, "rollback", "dev", "--json")
    assert [row["outcome"] for row in document["hosts"]] == ["deployed"]
    now = fleet.machine("dev")
    assert now.current == now.profile == older["path"]
    document = told(fleet, "rollback", "dev", "--generation", str(newest["number"]), "--json")
    assert fleet.machine("dev").current == newest["path"]


def test_garbage_goes_and_what_runs_stays(fleet: Fleet) -> None:
    """All but the current one are made forty days old: the newest of these is what ran thirty days ago, and stays."""
    for text in ("soon garbage", "what ran then", "what runs now"):
        fleet.change("dev", text)
        fleet.deploy("dev")
    before, listed = fleet.machine("dev"), told(fleet, "generations", "dev", "--json")
    [current], [kept, *gone] = [[e["number"] for e in listed if e["current"] is is_it] for is_it in (True, False)]
    links = " ".join(f"/nix/var/nix/profiles/system-{number}-link" for number in (kept, *gone))
    fleet.on("dev", f"sudo touch --no-dereference --date='40 days ago' {links}")
    [row] = told(fleet, "gc", "dev", "--older-than", "30d", "--json")["hosts"]
    assert row["outcome"] == "done"
    [step] = row["steps"]
    assert {*map(int, re.findall(r"\d+", step.partition("(")[2].partition(")")[0]))} == {*gone}
    assert [each["number"] for each in told(fleet, "generations", "dev", "--json")] == [current, kept]
    assert fleet.machine("dev") == before
    [row] = told(fleet, "gc", "dev", "--older-than", "30d", "--json")["hosts"]
    assert (row["outcome"], row["steps"]) == ("done", ["delete 0 generations older than 30d, and garbage"])


def test_what_the_flake_says_is_evaluated_built_and_copied(fleet: Fleet) -> None:
    fleet.change("dev", "only copied")
    before = fleet.machine("dev")
    assert told(fleet, "eval", "dev", "networking.hostName") == "dev"
    [row] = told(fleet, "hosts", "dev", "--json")
    assert (row["host"], row["kind"], row["vmid"], row["key"]) == ("dev", "nixos", 110, "pinned")
    [row] = told(fleet, "build", "dev", "--eval-only", "--json")["hosts"]
    assert (row["outcome"], row["why"]) == ("evaluated", None)
    [row] = told(fleet, "build", "dev", "--json")["hosts"]
    system = row["system"]
    assert (row["outcome"], fleet.on("dev", f"test -e {system}", check=False).status) == ("built", 1)
    [row] = told(fleet, "copy", "dev", "--dry-run", "--json")["hosts"]
    assert (row["outcome"], fleet.on("dev", f"test -e {system}", check=False).status) == ("planned", 1)
    [row] = told(fleet, "copy", "dev", "--json")["hosts"]
    assert (row["outcome"], row["why"]) == ("copied", system)
    fleet.on("dev", f"nix-store --check-validity {system}")
    assert fleet.machine("dev") == before
    [row] = told(fleet, "copy", "dev2", "--json")["hosts"]
    assert row["outcome"] == "unchanged"


HOOKS = """[hooks]
before_activate = [["sh", "-c", "cat > {0}/before; exit $(cat {0}/status)"]]
on_success = [["sh", "-c", "cat > {0}/success"]]
on_failure = [["sh", "-c", "cat > {0}/failure; exit 9"]]
"""


def test_hooks_hold_and_are_told(fleet: Fleet, tmp_path: Path) -> None:
    config, status = tmp_path / "config.toml", tmp_path / "status"
    config.write_text(HOOKS.format(tmp_path))
    config.chmod(0o600)
    status.write_text("1")
    fleet.change("dev", "held by a hook")
    before = fleet.machine("dev")
    ended = fleet.lab.run("nixherd", "deploy", "dev", "--table", env={"NIXHERD_CONFIG": str(config)}, check=False)
    assert (ended.status, fleet.machine("dev")) == (1, before)
    assert "dev  held" in ended.output
    assert "before_activate: sh: status 1" in ended.output
    assert "on_failure: sh: status 9" in ended.output
    assert [each["host"] for each in json.loads((tmp_path / "before").read_text())["hosts"]] == ["dev"]
    assert json.loads((tmp_path / "failure").read_text())["hosts"][0]["outcome"] == "held"
    status.write_text("0")
    ended = fleet.lab.run("nixherd", "deploy", "dev", env={"NIXHERD_CONFIG": str(config)})
    assert fleet.machine("dev").marker == "held by a hook"
    assert json.loads((tmp_path / "success").read_text())["hosts"][0]["outcome"] == "deployed"


def test_a_machine_may_say_not_now(fleet: Fleet) -> None:
    fleet.change("dev", "not now")
    before = fleet.machine("dev")
    fleet.on("dev", "sudo sh -c 'mkdir -p /run/nixherd && echo the backup runs > /run/nixherd/hold'")
    [row] = told(fleet, "deploy", "dev", "--json", status=1)["hosts"]
    assert (row["outcome"], fleet.machine("dev")) == ("held", before)
    assert "the backup runs" in row["why"]
    fleet.on("dev", "sudo rm /run/nixherd/hold")
    lock = "sudo systemd-inhibit --what=shutdown --who='a \"b\"' --why='a long job' --mode=block sleep 30"
    if (
        fleet.on(
            "dev",
            f"({lock} >/dev/null 2>&1 & sleep 1); sudo systemd-inhibit --list | grep -q 'a long job'",
            check=False,
        ).status
        == 0
    ):
        [row] = told(fleet, "deploy", "dev", "--json", status=1)["hosts"]
        assert (row["outcome"], "a long job" in row["why"]) == ("held", True)
        fleet.on("dev", "sudo pkill systemd-inhibit")
    [row] = told(fleet, "deploy", "dev", "--json")["hosts"]
    assert (row["outcome"], fleet.machine("dev").marker) == ("deployed", "not now")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("exec", "dev"), "write it after --"),
        (("exec", "nobody", "--", "true"), "nobody"),
        (("exec", "dev", "--", " "), "write it after --"),
        (("ssh", "nixos"), "name one of them"),
        (("gc", "dev", "--older-than", "soon"), "is not a number of days"),
        (("fact", "dev", "--fact", "facts.nixos.Nothing"), "Nothing"),
        (("eval", "dev", "networking.hostname"), "not there: hostname"),
        (("eval", "dev", "a b"), "is not an option's name"),
        (("build", "nobody"), "nobody"),
        (("copy", "doc1"), "doc1"),
        (("rollback", "dev", "--generation", "9999"), "9999"),
    ],
)
def test_what_cannot_be_meant_is_one_line(fleet: Fleet, words: tuple[str, ...], line: str) -> None:
    ended = fleet.lab.run("nixherd", *words, check=False)
    assert ended.status in (1, 2, 4), ended.output
    assert line in ended.output
    assert "Traceback" not in ended.output
