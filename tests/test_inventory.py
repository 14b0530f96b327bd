"""inventory.py under the real `pyinfra` command."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MakeFleet = Callable[..., Path]
ROOT = Path(__file__).parent.parent
PYINFRA = Path(sys.executable).with_name("pyinfra")

# One host that works and one that cannot be reached, by pyinfra's own connectors.
TWO_HOSTS = """
import click
from nixherd.pyinfra_glue import cli
cli.put_right(click.get_current_context())
both = ["@local", ("unreachable", {"ssh_hostname": "127.0.0.1", "ssh_port": 1})]
"""


class Pyinfra:
    """Runs `pyinfra INVENTORY …` from the checkout, with an empty HOME and nothing on stdin."""

    def __init__(self, directory: Path, programs: Callable[[dict[str, str]], dict[str, str]]) -> None:
        self.directory = directory
        self.programs = programs
        self.fleet: Path | None = None
        self.inventory = ROOT / "inventory.py"

    def environment(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        environment = {**os.environ, "HOME": str(home), "FLEET": str(self.fleet or "")}
        environment.pop("PROXMOX_TOKEN_FILE", None)
        return environment

    def __call__(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["pyinfra", self.inventory, *words], cwd=ROOT, env=self.programs({**self.environment(), **environment}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def refusal(self, *words: str, status: int = 2, **environment: str) -> str:
        """What pyinfra says when it refuses, without its own progress lines; the status is one of wrong input."""
        done = self(*words, **environment)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return "\n".join(line for line in done.stderr.splitlines() if line.strip() and not line.startswith("--> "))


@pytest.fixture
def pyinfra(tmp_path: Path, programs: Callable[[dict[str, str]], dict[str, str]]) -> Pyinfra:
    return Pyinfra(tmp_path, programs)


@pytest.fixture
def small(pyinfra: Pyinfra, make_fleet: MakeFleet) -> Pyinfra:
    pyinfra.fleet = make_fleet(("vmid = 110;", 'vmid = 110; tags = [ "ci" ];'))
    return pyinfra


@pytest.fixture
def two_hosts(pyinfra: Pyinfra) -> Pyinfra:
    pyinfra.inventory = pyinfra.directory / "two.py"
    pyinfra.inventory.write_text(TWO_HOSTS)
    return pyinfra


def test_hosts_groups_and_data(small: Pyinfra) -> None:
    done = small("debug-inventory", "--json")
    assert done.returncode == 0, done.stderr
    hosts = {host["name"]: host for host in json.loads(done.stdout)}
    assert {name: set(host["groups"]) - {"inventory"} for name, host in hosts.items()} == {
        "dev": {"nixos", "managed", "dev", "ci"},
        "proxmox-vm": {"nixos", "imported", "readonly", "proxmox-vm", "doc1"},
        "caddy": {"home_manager", "caddy", "cad"},
    }
    assert hosts["dev"]["data"]["host_id"] == "dev"
    token_file = small.environment()["HOME"] + "/.config/nixherd/proxmox-token"
    assert hosts["dev"]["data"]["context"] == {"fleet": str(small.fleet), "token_file": token_file}
    assert hosts["dev"]["data"]["ssh_strict_host_key_checking"] == "yes"


def _token_file(pyinfra: Pyinfra, *words: str, **environment: str) -> str:
    done = pyinfra("debug-inventory", "--json", *words, **environment)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)[0]["data"]["context"]["token_file"])


def test_where_the_token_is(small: Pyinfra, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "all.py").write_text("proxmox_token_file = '/from/group-data'\n")
    assert _token_file(small, PROXMOX_TOKEN_FILE="/from/environment") == "/from/environment"
    assert _token_file(small, "--group-data", str(tmp_path / "more")) == "/from/group-data"
    assert _token_file(small, "--data", "proxmox_token_file=/from/data") == "/from/data"


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        (["--limit", "dev"], ["dev"]),
        (["--limit", "doc1"], ["proxmox-vm"]),
        (["--limit", "nixos"], ["dev", "proxmox-vm"]),
        (["--limit", "ci", "--limit", "cad"], ["caddy", "dev"]),
        (["--limit", "ci,cad,doc1", "--exclude", "doc1,cad"], ["dev"]),
        (["--exclude", "nixos"], ["caddy"]),
        (["--limit", "*v*", "--exclude", "readonly"], ["dev"]),
    ],
)
def test_limits(small: Pyinfra, words: list[str], selected: list[str], tmp_path: Path) -> None:
    # Nobody answers there: what counts is which hosts the command line tries to connect.
    script = (
        "import pyinfra_cli\nfrom pyinfra.api.host import Host\nfrom pyinfra_cli.main import main\n"
        f"Host.connect = lambda self, *a, **k: open({str(tmp_path)!r} + '/seen-' + self.name, 'w').close()\nmain()\n"
    )
    (tmp_path / "stub.py").write_text(script)
    subprocess.run(
        ["pyinfra-python", tmp_path / "stub.py", "inventory.py", *words, "exec", "--", "true"],
        cwd=ROOT, env=small.programs(small.environment()), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert sorted(path.name.removeprefix("seen-") for path in tmp_path.glob("seen-*")) == selected


def test_what_pyinfra_would_answer_with_a_traceback_or_with_nothing(small: Pyinfra) -> None:
    assert small.refusal("--data", "nonsense", "deploys/deploy.py") == "--data nonsense: write NAME=VALUE"
    small.inventory = small.directory / "nosuch.py"
    assert (
        small.refusal("-y", "exec", "--", "true")
        == f"{small.inventory}: the inventory does not exist; nothing was done"
    )


def test_a_limit_that_selects_nothing(small: Pyinfra) -> None:
    assert small.refusal("--limit", "dve", "exec", "--", "true") == (
        "--limit dve: no host or group has this name; the nearest are dev"
    )
    assert small.refusal("--exclude", "cady", "exec", "--", "true") == (
        "--exclude cady: no host or group has this name; the nearest are caddy, cad"
    )
    assert small.refusal("--limit", "dev", "--exclude", "nixos", "exec", "--", "true") == (
        "no host is left to work on; the fleet, --limit and --exclude leave none"
    )
    assert small.refusal("--limit", "dev,cady", "exec", "--", "true") == (
        "--limit cady: no host or group has this name; the nearest are caddy, cad"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("unknown=1", "--data unknown: nobody asks for it; correct the name, or leave it out"),
        ("build_on=nosuch", "build_on=nosuch is neither local, target nor a host of the fleet"),
        ("goal=swich", "goal=swich is not one of switch, boot, test, dry-activate"),
    ],
)
def test_data_that_cannot_be_meant_is_refused_before_anything(small: Pyinfra, data: str, message: str) -> None:
    """An unchanged host would never have come to the place where it is used."""
    assert small.refusal("--dry", "deploys/deploy.py", "--data", data).startswith(message)


def test_a_wrong_fleet_is_refused_with_all_its_findings(pyinfra: Pyinfra, make_fleet: MakeFleet) -> None:
    pyinfra.fleet = make_fleet(("vmid = 110;", "vmid = 104;"), ('disk = "64G"', 'disk = "64"'))
    assert pyinfra.refusal("exec", "--", "true").splitlines() == [
        "vms/definitions.nix: managed.dev.disk: '64' is not a size; write a number and its unit, such as 64G",
        "vms/definitions.nix: managed.dev.vmid: 104 is also imported.doc1.vmid; give each guest a VMID of its own",
    ]


def test_no_fleet_and_no_nix(pyinfra: Pyinfra, make_fleet: MakeFleet) -> None:
    missing = "no such directory; FLEET names the directory of the fleet's flake"
    assert pyinfra.refusal("exec", "--", "true", FLEET="/none") == f"/none: {missing}"
    pyinfra.fleet = make_fleet()
    no_nix = "nix: no such program on PATH; install it, or put it on PATH"
    assert pyinfra.refusal("exec", "--", "true", status=4, PATH="/nonexistent") == no_nix


def test_the_fleet_beside_the_inventory_is_the_default(pyinfra: Pyinfra, make_fleet: MakeFleet) -> None:
    directory = make_fleet()
    pyinfra.inventory = directory.parent / "inventory.py"
    pyinfra.inventory.write_text((ROOT / "inventory.py").read_text())
    assert len(json.loads(pyinfra("debug-inventory", "--json").stdout)) == 3


def test_wrong_ad_hoc_arguments(small: Pyinfra) -> None:
    assert small.refusal("server.shell", "comands=ls") == (
        "server.shell: missing a required argument: 'commands'; it takes commands"
    )
    assert small.refusal("fact", "server.Which", "comand=ls") == (
        "server.Which: missing a required argument: 'command'; it takes command"
    )
    assert small.refusal("server.StringCommand") == (
        "server.StringCommand: that is not an operation; name a function, as in operations.nixos.switch"
    )
    assert small.refusal("fact", "server.datetime").startswith("fact server.datetime: that is not a fact; ")


@pytest.mark.parametrize("words", [["exec", "--", "true"], ["fact", "server.Hostname"]])
def test_a_machine_that_is_not_there_fails_an_ad_hoc_command(small: Pyinfra, words: list[str]) -> None:
    """A VM may be absent while provisioning makes it; to `exec` and `fact` that is a failure like any other."""
    done = small("--limit", "dev", *words)
    assert done.returncode == 4
    assert "token file " in done.stderr
    assert "null" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("yes", [["-y"], []])
def test_one_unreachable_host_neither_asks_nor_stops_the_others(two_hosts: Pyinfra, yes: list[str]) -> None:
    done = two_hosts(*yes, "exec", "--", "echo it works")
    assert "it works" in done.stderr + done.stdout
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_fail_percent_is_still_heeded(two_hosts: Pyinfra) -> None:
    for yes in (["-y"], []):
        done = two_hosts(*yes, "--fail-percent", "10", "exec", "--", "echo it works")
        assert "it works" not in done.stderr + done.stdout
        assert "Over 10% of hosts failed" in done.stderr
        assert done.returncode == 1


def test_a_failing_fact_is_a_failure(two_hosts: Pyinfra) -> None:
    limit = ("--limit", "@local")
    assert two_hosts(*limit, "fact", "server.Command", "command=exit 3").returncode == 1
    assert two_hosts(*limit, "fact", "server.Command", "command=echo fine").returncode == 0


def test_no_wait_does_not_hide_failures(two_hosts: Pyinfra) -> None:
    limit = ("-y", "--no-wait", "--limit", "@local")
    assert two_hosts(*limit, "exec", "--", "exit 3").returncode == 1
    assert two_hosts(*limit, "exec", "--", "true").returncode == 0


def test_json_says_what_happened_when_the_last_host_fails(two_hosts: Pyinfra) -> None:
    done = two_hosts("-y", "--json", "--limit", "@local", "exec", "--", "exit 3")
    assert done.returncode == 1
    results = json.loads(done.stdout)["results"]
    assert (results["totals"]["error"], results["failed_hosts"]) == (1, ["@local"])


def test_a_question_without_an_answer_executes_nothing(two_hosts: Pyinfra, tmp_path: Path) -> None:
    done = two_hosts("--limit", "@local", "files.file", f"{tmp_path}/made")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "nothing was executed: stdin gives no answer; -y executes without asking, --dry only plans"
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


def test_an_error_meant_for_the_operator_has_no_traceback(two_hosts: Pyinfra, tmp_path: Path) -> None:
    (tmp_path / "deploy.py").write_text(
        "from nixherd.base.errors import Refused\nraise Refused('vm 104 is readonly')\n"
    )
    done = two_hosts("-y", "--limit", "@local", str(tmp_path / "deploy.py"))
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1] == "vm 104 is readonly"
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_keep_theirs(two_hosts: Pyinfra, tmp_path: Path) -> None:
    (tmp_path / "deploy.py").write_text("1 / 0\n")
    done = two_hosts("-y", "--limit", "@local", str(tmp_path / "deploy.py"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


# A build made ahead, and a program that the host waits for; each says its PID.
WORKING = """
from pyinfra.operations import python
from nixherd.base.waiting import ahead
from nixherd.base.process import run
def program(name):
    run(["sh", "-c", f"echo $$ > PLACE/{name}.new; mv PLACE/{name}.new PLACE/{name}; exec sleep 60"])
def work():
    ahead(lambda: program("ahead"))
    WAIT
python.call(function=work)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, None])
def test_nothing_that_a_run_started_outlives_it(two_hosts: Pyinfra, tmp_path: Path, number: int | None) -> None:
    """Interrupted, killed, or (None) failed while a build goes on in the background."""
    fails = "run(['sh', '-c', 'while ! [ -e PLACE/ahead ]; do sleep 0.02; done; exit 1'])"
    script = WORKING.replace("WAIT", 'program("waited-for")' if number else fails)
    (tmp_path / "deploy.py").write_text(script.replace("PLACE", str(tmp_path)))
    names = ["ahead", "waited-for"] if number else ["ahead"]
    with subprocess.Popen(
        [PYINFRA, two_hosts.inventory, "-y", "--limit", "@local", str(tmp_path / "deploy.py")], cwd=ROOT,
        env=two_hosts.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 20
        while not all((tmp_path / name).exists() for name in names):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if number:
            process.send_signal(number)
        status = process.wait(10)
    statuses: dict[int | None, int] = {None: 1, signal.SIGKILL: -signal.SIGKILL}
    assert status == statuses.get(number, 128 + (number or 0))
    pids = [(tmp_path / name).read_text().strip() for name in names]
    time.sleep(0.2)
    assert [pid for pid in pids if b"sleep" in _command_line(pid)] == []


def _command_line(pid: str) -> bytes:
    """Empty for a process that is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_ctrl_c_is_no_success(two_hosts: Pyinfra, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words = ["-y", "--limit", "@local", "exec", "--", f"echo $$ >{begun}.new; mv {begun}.new {begun}; exec sleep 30"]
    with subprocess.Popen(
        [PYINFRA, two_hosts.inventory, *words], cwd=ROOT, env=two_hosts.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not begun.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(begun.read_text()), signal.SIGKILL)  # pyinfra's own @local connector leaves it behind
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Exiting" not in out


INCLUDES = "from pyinfra import local\nlocal.include({0})\n"


@pytest.mark.parametrize("option", [["--no-wait"], ["--serial"], ["--fail-percent", "10"]], ids=lambda words: words[0])
@pytest.mark.parametrize("file", ["deploys/reboot.py", str(ROOT / "deploys/deploy.py"), "included"])
def test_an_order_of_pyinfras_own_is_refused_however_a_rollout_is_named(
    small: Pyinfra, tmp_path: Path, option: list[str], file: str
) -> None:
    (tmp_path / "mine.py").write_text(INCLUDES.format(repr("deploys/deploy.py")))
    words = str(tmp_path / "mine.py") if file == "included" else file
    assert small.refusal("-y", *option, words).startswith(f"{option[0]}: ")


@pytest.mark.parametrize("file", ["deploys/proxmox_host.py", "included"])
def test_what_is_for_nodes_is_refused_for_hosts_of_the_fleet(small: Pyinfra, tmp_path: Path, file: str) -> None:
    (tmp_path / "mine.py").write_text(INCLUDES.format(repr("deploys/proxmox_host.py")))
    words = str(tmp_path / "mine.py") if file == "included" else file
    assert small.refusal("-y", words) == (
        "proxmox-host is for a node of the hypervisor, and these are hosts of the fleet: "
        f"pyinfra nodes.py {words} --limit NODE"
    )


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "deploys").glob("*.py")))
def test_a_deploy_file_of_ours_refuses_the_hosts_of_another_inventory(two_hosts: Pyinfra, name: str) -> None:
    done = two_hosts("-y", "--limit", "@local", f"deploys/{name}")
    assert done.returncode == 2, done.stderr
    assert "is not a host of " in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
