"""From nothing to a machine that decrypts its secrets, in both orders, judged past the code that did it."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.integration.lab_driver import CHECKOUT, Ended, Lab
from tests.integration.verified import report

pytestmark = pytest.mark.slow

ENROLL, PROVISION, POST = (f"deploys/{name}.py" for name in ("enroll", "provision", "post_provision"))
CHECK = "deploys/secrets_check.py"
SECRETS = {"api_token": ("dev.yaml", '["api_token"]'), "wifi/password": ("common.yaml", '["wifi"]["password"]')}
KILL_ANYWHERE = CHECKOUT.parent / "shared/tools/kill-anywhere"


def deploy(lab: Lab, *deploys: str, limit: str = "dev", check: bool = True, data: tuple[str, ...] = ()) -> list[str]:
    words = ["-y", "inventory.py", *deploys, "--limit", limit, *(word for each in data for word in ("--data", each))]
    ended = lab.pyinfra(*words, check=check)
    assert check or ended.status, ended.output
    return ended.says(limit)


def git(lab: Lab, *words: str) -> list[str]:
    return lab.run("git", "-C", str(lab.places.fleet), *words).output.splitlines()


def subjects(lab: Lab) -> list[str]:
    return git(lab, "log", "--format=%s")[:-1]


def on(lab: Lab, command: str) -> str:
    """A command on dev over OpenSSH, which accepts the key that hosts.nix of the last commit pins and no other."""
    address, known = report(lab)["address"], lab.state / "known-enrolled"
    expression = "(import ./hosts.nix).dev.publicKey"
    key = lab.run("sh", "-c", f"cd $FLEET && nix eval --impure --raw --expr {shlex.quote(expression)}").output
    known.write_text(f"{address} {key}\n")
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    return lab.run("ssh", *options, f"abl030@{address}", command).output.strip()


def assert_decrypted(lab: Lab) -> None:
    """What the machine has decrypted is what the operator decrypts."""
    for name, (file, part) in SECRETS.items():
        here = lab.run(
            "sh", "-c", f"sops decrypt --extract {shlex.quote(part)} $FLEET/secrets/{file} | sha256sum"
        ).output
        assert on(lab, f"sudo cat /run/secrets/{name} | sha256sum") == here.strip(), name


def assert_in_service(lab: Lab) -> None:
    assert git(lab, "status", "--porcelain") == []
    status = json.loads(lab.run("nixherd", "secrets", "status", "--json").output)
    assert not status["drift"], status
    files = {row["file"].removeprefix("secrets/"): row["recipients"] for row in status["files"]}
    assert all("dev" in files[name] for name in ("common.env", "common.yaml", "dev.yaml"))
    assert "dev" not in files["ssh_key_abl030"]
    assert "readonly = true;" in (lab.places.fleet / "vms/definitions.nix").read_text().split("managed")[1]
    assert "| dev | dev | dev | NixOS |  | 110 (dev) | SHA256:" in (lab.places.fleet / "docs/machines.md").read_text()
    assert not list(lab.kept.glob("dev/ssh_host*"))
    assert not list(lab.places.fleet.rglob(".nixherd*"))
    assert {path.name for path in lab.kept.parent.glob(".trees/*/*")} == {"lock"}


def test_enrolled_first_it_decrypts_at_its_first_boot(lab: Lab) -> None:
    """By the fleet's own command; then all of it again by pyinfra, which finds nothing left to do."""
    made = typed(lab, "nix run .#provision-vm -- dev --table")
    assert made.status == 0, made.output
    seen = report(lab)
    runs = f"at {seen['address']} runs {seen['system']}"
    assert f"dev (vm 110): in service: {runs}; hosts.nix pins its key; readonly" in made.output.splitlines()
    output = made.says("dev")
    assert [line for line in output if line.startswith("decrypted /run/secrets/api_token (400 root), salted SHA-256 ")]
    assert subjects(lab) == ["fleet: dev is in service", "fleet: dev joins"]
    assert lab.boots() == ["disk", "installer", "disk"]
    assert_in_service(lab)
    assert_decrypted(lab)

    before = lab.changes()
    again = lab.pyinfra("-y", "inventory.py", ENROLL, PROVISION, POST, CHECK, "--limit", "dev")
    assert not again.rows("Success"), again.output
    assert lab.changes() == before
    assert len(subjects(lab)) == 2
    refused = lab.run("nixherd", "vm", "stop", "dev", check=False)
    assert refused.status == 3
    assert_commands_of_the_flake(lab)
    assert lab.changes() == before
    assert len(subjects(lab)) == 2
    assert_drift_is_noticed(lab)


def typed(lab: Lab, line: str) -> Ended:
    """A line as somebody types it in the fleet's directory."""
    return lab.run("sh", "-c", f"cd $FLEET && {line}", check=False)


def assert_commands_of_the_flake(lab: Lab) -> None:
    """The lines that the manuals of such fleets have, on a machine in service."""
    address = report(lab)["address"]
    for line, status, words in (
        (f"nix run .#post-provision-vm -- dev {address} 110 --table", 0, "hosts.nix pins its key; readonly"),
        ("nix run .#post-provision-vm dev 10.77.0.250 110", 2, f") has {address}"),
        (f"nix run .#post-provision-vm dev {address} 111", 2, "declares managed.dev as vm 110"),
        ("nix run .#provision-vm dev", 3, "vm 110 (dev) is readonly in vms/definitions.nix; refusing to provision it"),
        ("nix run .#provision-vm nosuch", 2, "nosuch: no guest of vms/definitions.nix has this name"),
        ("./vms/proxmox-ops.sh list --table", 0, " 110  dev "),
        ("./vms/proxmox-ops.sh status 110", 0, '"status": "running"'),
        ("./vms/proxmox-ops.sh next-vmid 100 199", 0, "declare it in vms/definitions.nix"),
        ("./vms/proxmox-ops.sh stop 104", 3, "vm 104 (doc1) is readonly in vms/definitions.nix; refusing to stop it"),
        ("./vms/proxmox-ops.sh start 110", 3, "vm 110 (dev) is readonly in vms/definitions.nix; refusing to start it"),
        ("./vms/proxmox-ops.sh destroy 110 yes", 2, "not destroy but: nixherd vm destroy NAME VMID"),
    ):  # fmt: skip
        ended = typed(lab, line)
        assert (ended.status, words in ended.output) == (status, True), f"{line}: {ended.status}: {ended.output}"


def assert_drift_is_noticed(lab: Lab) -> None:
    """A machine that shows another key than hosts.nix pins."""

    def machine() -> tuple[bool, str]:
        ended = lab.run("nixherd", "secrets", "status", "--machines", "--json", check=False)
        status = json.loads(ended.output)
        return status["drift"], {row["host"]: row["machine"] for row in status["hosts"]}["dev"]

    assert machine() == (False, "ok")
    hosts = lab.places.fleet / "hosts.nix"
    text = hosts.read_text()
    other = text.split('publicKey = "')[1].partition('"')[0]
    pinned = text.split("\n  dev = {")[1].split('publicKey = "')[1].partition('"')[0]
    hosts.write_text(text.replace(pinned, other.replace("root@", "not@")))
    assert machine() == (True, "other key")
    lab.run("git", "-C", str(lab.places.fleet), "checkout", "-q", "hosts.nix")


def test_enrolled_afterwards_it_decrypts_after_its_next_switch(lab: Lab) -> None:
    output = deploy(lab, PROVISION)
    assert "not encrypted for it: secrets/common.env, secrets/common.yaml, secrets/dev.yaml; enroll it" in output[-1]
    deploy(lab, POST)
    assert subjects(lab) == ["fleet: dev is in service"]
    assert git(lab, "show", "--format=", "--name-only") == [
        *("docs/machines.md", "hosts.nix", "secrets/.sops.yaml", "secrets/common.env", "secrets/common.yaml"),
        *("secrets/dev.yaml", "vms/definitions.nix"),
    ]
    assert_in_service(lab)
    [advice] = re.findall(
        r"its system is older than the files, which are encrypted for it by now; `([^`]*)`",
        " ".join(deploy(lab, CHECK, check=False)),
    )
    lab.run("sh", "-c", f"cd $FLEET && {advice}")
    assert any("decrypted /run/secrets/wifi/password" in line for line in deploy(lab, CHECK))
    assert_decrypted(lab)


def test_a_plan_says_what_would_be_done_and_writes_nothing(lab: Lab) -> None:
    planned = lab.pyinfra("--dry", "inventory.py", ENROLL, "--limit", "dev")
    assert "dev joins rule 1 (^common\\.(yaml|env)$), rule 5 (^dev\\.yaml$)" in planned.output
    assert "encrypt secrets/dev.yaml: +dev" in planned.output
    assert not lab.kept.exists() or not list(lab.kept.glob("dev/*"))
    assert not (lab.kept.parent / ".trees").exists()
    assert subjects(lab) == []
    assert lab.changes() == []


def test_several_hosts_join_one_after_another(lab: Lab) -> None:
    lab.pyinfra("-y", "inventory.py", ENROLL, "--limit", "managed")
    assert sorted(subjects(lab)) == [f"fleet: dev{number} joins" for number in ("", 2, 3, 4)]
    status = json.loads(lab.run("nixherd", "secrets", "status", "--json").output)
    assert not status["drift"], status
    recipients = {row["file"].removeprefix("secrets/"): row["recipients"] for row in status["files"]}
    assert {"dev", "dev2", "dev3", "dev4"} <= set(recipients["common.yaml"])
    assert recipients["dev3.yaml"] == ["abl030", "dev3"]


def test_wrong_identities_and_rules_stop_it_before_anything_is_written(lab: Lab) -> None:
    for data, words in (
        ("age_identity=/no/such/file", "/no/such/file: no age identity there"),
        ('secrets_rules=["nosuch"]', ".sops.yaml has no rule nosuch"),
        ("secrets_rules=nosuch", "secrets_rules is a list of rules' numbers or path_regexes"),
        ("secrets_directory=../elsewhere", "secrets_directory=../elsewhere is not a path below the fleet's directory"),
        ("commit_message={{ nosuch }}", "commit_message: 'nosuch' is undefined"),
    ):
        output = deploy(lab, ENROLL, check=False, data=(data,))
        assert words in " ".join(output), output
        assert subjects(lab) == []
        assert git(lab, "status", "--porcelain") == []
    ended = lab.pyinfra("-y", "inventory.py", ENROLL, "--limit", "dev", "--data", "commit=perhaps", check=False)
    assert (ended.status, "--data commit=perhaps is not " in ended.output) == (2, True), ended.output
    assert "Connecting" not in ended.output
    assert subjects(lab) == []


@pytest.mark.skipif(not KILL_ANYWHERE.exists(), reason="../shared/tools/kill-anywhere is not there")
def test_killed_at_any_moment_the_next_run_finishes_it(lab: Lab) -> None:
    command = f"{shlex.quote(sys.executable)} -m lab"
    fleet = shlex.quote(str(lab.places.fleet))
    verify = f'test -z "$(git -C {fleet} status --porcelain)" && test $(git -C {fleet} log --oneline | wc -l) = 2'
    status, environment = lab.inside("nixherd", "secrets", "status", "--json")
    verify += f" && {shlex.join(status)}"
    run, _ = lab.inside("pyinfra", "-y", "inventory.py", ENROLL, "--limit", "dev")
    done = subprocess.run(
        [str(KILL_ANYWHERE), "--points", "4", "--random", "2", "--reset", f"{command} reset", "--verify", verify]
        + ["--", *run],
        cwd=CHECKOUT,
        env=lab.preloaded(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("kill-anywhere: 4/4\n"), done.stdout + done.stderr
