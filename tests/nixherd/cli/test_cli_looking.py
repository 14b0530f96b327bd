"""The commands that look: what they show, in which shape, and how few requests they need."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nixherd.cli.guests import entry_of, guest_name
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import GuestType
from nixherd.proxmox.config import VmConfig
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import MAC, Emulator, granted
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import FLEET
from tests.preloaded.programs import Programs

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("emulator")]


def test_the_list_joins_what_is_with_what_is_declared(nixherd: Nixherd, emulator: Emulator) -> None:
    rows = {row["vmid"]: row for row in nixherd("list").json}
    assert {vmid: (row["name"], row["origin"], row["readonly"], row["status"]) for vmid, row in rows.items()} == {
        104: ("doc1", "imported", True, "running"),
        109: ("igp", "imported", True, "running"),
        110: ("dev", "managed", False, "absent"),
        111: ("kept", "managed", True, "running"),
        9002: ("debian-13", "template", None, "stopped"),
    }
    # one for all, and whether what it does not show is there
    assert [row["path"] for row in emulator.requests()] == ["/cluster/resources", "/cluster/nextid"]
    table = nixherd("list", "--table").out
    assert "vmid" in table.splitlines()[0]
    assert len(table.splitlines()) == 6


def test_two_hundred_on_three_nodes_take_one_request(nixherd: Nixherd, emulator: Emulator) -> None:
    vms = {
        str(300 + n): {"type": "qemu", "node": f"prom{n % 3 or ''}", "status": "stopped", "config": {"name": f"vm{n}"}}
        for n in range(196)
    }
    nodes = {f"prom{n}": {"cpus": 2, "memory": 1 << 33, "bridges": {"vmbr0": {}}} for n in (1, 2)}
    emulator.control("reset", patch={"vms": vms, "nodes": nodes, "acl": granted(("/vms", "PVEAuditor"))})
    rows = nixherd("list").json
    assert len([row for row in rows if row["status"] != "absent"]) == 200
    assert {row["node"] for row in rows} == {"prom", "prom1", "prom2"}
    assert len(emulator.requests()) <= 4


def test_status_and_config_of_any_guest(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    about = nixherd("status", "dev").json
    assert (about["node"], about["status"], about["ours"], about["pending"]) == ("prom", "running", True, [])
    emulator.client().set_config("prom", 110, {"cores": 2})
    assert nixherd("status", "dev").json["pending"] == ["cores"]
    assert nixherd("status", "doc1").json["readonly"] is True
    assert nixherd("status", "9002").json["origin"] == "template"
    assert nixherd("config", "104").json["name"] == "doc1"
    gone = nixherd("status", "105")
    assert (gone.status, gone.err) == (4, "guest 105 does not exist\n")
    assert emulator.changes() == ["PUT /nodes/prom/qemu/110/config"]


def test_the_address_is_the_one_of_net0(nixherd: Nixherd, emulator: Emulator) -> None:
    assert nixherd("ip", "doc1").out == "192.0.2.104\n"
    assert nixherd("ip", "doc1", "--json").json == {"vmid": 104, "address": "192.0.2.104"}
    rows = nixherd("ip", "doc1", "--all").json
    assert {"name": "ens18", "mac": MAC.lower()}.items() <= rows[-1].items()
    emulator.control("fault", name="agent-silent", vmid=104)
    silent = nixherd("ip", "doc1")
    assert silent.status == 4
    assert "its agent does not answer" in silent.err


def test_the_address_of_a_guest_without_an_agent_is_what_else_is_known(nixherd: Nixherd, emulator: Emulator) -> None:
    config = {"agent": None, "ipconfig0": "ip=192.0.2.7/24,gw=192.0.2.1"}
    emulator.control("reset", patch={"vms": {"104": {"config": config}}})
    fixed = nixherd("ip", "doc1")
    assert (fixed.status, fixed.out) == (0, "192.0.2.7\n")
    assert "No QEMU guest agent configured; fixed in its configuration, and nobody was asked whether" in fixed.err
    assert nixherd("ip", "doc1", "--json").json == {"vmid": 104, "address": "192.0.2.7", "source": "configuration"}
    emulator.control("reset", patch={"vms": {"104": {"config": {"agent": None, "ipconfig0": "ip=dhcp"}}}})
    assert nixherd("ip", "doc1").status == 4


def test_the_next_vmid_is_a_proposal(nixherd: Nixherd, emulator: Emulator) -> None:
    found = nixherd("next-id")
    assert found.out == "100\n"
    assert "vmid = 100;" in found.err
    emulator.control("reset", patch={"vms": {"200": {"type": "lxc", "config": {"hostname": "x"}}}})
    assert nixherd("next-id", "containers", "--json").json == {"range": "containers", "vmid": 201}
    assert nixherd("next-id", "150", "199").out == "150\n"
    assert "no range of vmidRanges" not in nixherd("next-id", "150", "199").err
    outside = nixherd("next-id", "7000-7009", "--json")
    assert outside.json == {"range": "7000-7009", "vmid": 7000}
    assert "no range of vmidRanges holds it" in nixherd("next-id", "7000", "7009").err
    for words, said in {
        ("199", "150"): "199-150 ends before it starts; write 150-199",
        ("1", "99"): "1-99 is not a range of VMIDs, which are 100 to 999999999",
        ("prod", "test"): "prod test is not a range; name one of vmidRanges, or its first and its last VMID",
        ("",): "'' is not a range; name one of vmidRanges",
        ("200", "200"): "no VMID of 200-200 (200 to 200) is free",
        ("nosuch",): "vmidRanges has no nosuch; it has",
    }.items():
        refused = nixherd("next-id", *words)
        assert (refused.status, refused.out) == (2, "")
        assert said in refused.err
    assert emulator.changes() == []


def test_storages_and_their_volumes(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    assert {row["name"] for row in nixherd("storage").json} == {"nvmeprom", "local", "tank"}
    volumes = nixherd("storage", "nvmeprom", "--content", "images").json
    assert "nvmeprom:vm-110-disk-0" in {row["volid"] for row in volumes}
    assert nixherd("storage", "nosuch").status == 2
    assert {row["name"] for row in nixherd("storage", "--content", "images").json} == {"nvmeprom", "tank"}
    assert nixherd("storage", "--content", "imgaes").status == 2


def test_tasks_and_their_logs(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    nixherd("snapshot", "dev", "clean")
    [task] = nixherd("tasks", "dev").json
    assert (task["type"], task["status"]) == ("qmsnapshot", "OK")
    assert nixherd("log", task["upid"]).out.splitlines()[-1] == "TASK OK"
    emulator.control("fault", name="task-fails", type="qmshutdown")
    nixherd("shutdown", "dev")
    [failed] = nixherd("tasks", "--errors").json
    followed = nixherd("log", "--follow", failed["upid"])
    assert followed.status == 1
    assert "TASK ERROR" in followed.out


def test_differences_are_shown_and_are_a_status(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, cores=2, protection=1)
    found = nixherd("diff", "dev", "doc1")
    assert found.status == 1
    rows = [(row["name"], row["difference"], row["remedy"]) for row in found.json]
    assert ("dev", "set cores 2 → 4, protection on → off (from its next start on)", "apply") in rows
    assert ("doc1", "cores: documented 8, is 2", None) in rows
    assert emulator.changes() == []
    assert nixherd("diff", "igp").status == 1
    assert nixherd("diff", "105").status == 2


@pytest.mark.parametrize("words", [["109x"], ["--managed", "nosuch", "300"]])
def test_only_what_is_there_can_be_imported(nixherd: Nixherd, emulator: Emulator, words: list[str]) -> None:
    assert nixherd("import", *words).status == 2
    template = nixherd("import", "9002")
    assert (template.status, template.out) == (2, "")
    assert template.err.startswith("vm 9002 is declared already, as the template; ")
    declared = nixherd("import", "doc1")
    assert (declared.status, declared.err) == (2, "vm 104 (doc1) is declared already, as imported.doc1\n")


@pytest.mark.parametrize("managed", [False, True])
def test_an_imported_guest_is_an_entry_that_evaluates(
    nixherd: Nixherd, emulator: Emulator, fleet: Path, managed: bool
) -> None:
    strange = {"name": "web.lan", "cores": 3, "memory": "4096", "tags": "a;b", "boot": "order=scsi0"}
    strange |= {"scsi0": "nvmeprom:vm-105-disk-0,size=32G", "description": '${x} "quoted"'}
    vm = {"type": "qemu", "node": "prom", "status": "stopped", "config": strange}
    emulator.control("reset", patch={"vms": {"105": vm}, "acl": granted(("/vms/105", "PVEAuditor"))})
    hosts, file = fleet / "hosts.nix", fleet / "vms" / "definitions.nix"
    if managed:
        hosts.write_text(hosts.read_text().replace('hostname = "caddy"', 'hostname = "other"', 1))
        file.write_text(file.read_text().replace('nixosConfig = "caddy"', 'nixosConfig = "proxmox-vm"', 1))
        file.write_text(file.read_text().replace('hostname = "proxmox-vm"', 'hostname = "elsewhere"', 1))
        file.write_text(file.read_text().replace('sshAlias = "doc1"', 'sshAlias = "else"', 1))
    entry = nixherd("import", "105", *(["--managed", "caddy"] if managed else []))
    assert entry.status == 0, entry.err
    text = file.read_text().rstrip().rstrip("}")
    file.write_text(f"{text.rstrip()}\n}}\n")
    section, rest = entry.out.split(".", 1)
    anchor = f"  {section} = {{\n"
    assert anchor in file.read_text()
    file.write_text(file.read_text().replace(anchor, f"{anchor}    {rest}", 1))
    found = load_fleet(fleet).vms["web.lan"]
    assert (found.vmid, found.is_managed, found.readonly) == (105, managed, not managed)
    if managed:
        assert (found.cores, found.memory, found.tags) == (3, 4096, ("a", "b"))
        assert "then `nixherd vm adopt web.lan 105` marks it" in entry.err
    else:
        assert found.specs == {"cores": 3, "memory": 4096, "disk": "32G", "storage": "nvmeprom"}


@pytest.mark.parametrize("name", ["DEV", "dev", "proxmox-VM"])
def test_a_guest_that_is_called_like_a_host_of_another_is_an_entry_that_loads(
    nixherd: Nixherd, emulator: Emulator, fleet: Path, name: str
) -> None:
    vm = {"type": "qemu", "node": "prom", "status": "stopped", "config": {"name": name, "cores": 1}}
    emulator.control("reset", patch={"vms": {"105": vm}, "acl": granted(("/vms/105", "PVEAuditor"))})
    file = fleet / "vms" / "definitions.nix"
    entry = nixherd("import", "105")
    assert f'hostname = "{name}-105";' in entry.out
    nested = entry.out.removeprefix("imported.")
    file.write_text(file.read_text().replace("  imported = {\n", f"  imported = {{\n    {nested}", 1))
    assert {vm.vmid for vm in load_fleet(fleet).vms.values()} == {104, 105, 109, 110, 111}
    housed = nixherd("import", "105", "--managed", "dev")
    assert housed.status == 2
    assert "host dev lives in vm 110 (dev) already, managed.dev; one guest is one host" in housed.err


def test_a_container_is_an_entry_too() -> None:
    config = VmConfig({"hostname": "1 dns", "memory": 512, "cores": 1, "rootfs": "tank:vm-210-disk-0,size=8G"})
    text, name = entry_of(FLEET, "prom2", 210, GuestType.LXC, config, "running")
    assert name == guest_name("1 dns") == "guest-1-dns"
    assert 'type = "lxc";' in text
    assert 'node = "prom2";' in text


# The doctor


def verdicts(ended_json: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(row["check"], row["verdict"]) for row in ended_json}


def test_the_doctor_finds_rights_that_reach_too_far(nixherd: Nixherd, emulator: Emulator) -> None:
    acl = [row for row in granted(("/vms", "PVEVMAdmin"), ("/", "PVEAuditor")) if row["path"] != "/vms/104"]
    begin(emulator, acl=acl)
    ended = nixherd("doctor")
    assert ended.status == 1
    found = verdicts(ended.json)
    assert {("protected", "failed"), ("breadth", "failed"), ("certificate", "ok"), ("template", "ok")} <= found
    assert {("token", "unknown"), ("clock", "ok"), ("guest", "ok"), ("storage", "ok")} <= found
    assert any("the token may change vm 104 (doc1)" in row["found"] for row in ended.json)
    assert emulator.changes() == []


def test_the_doctor_is_content_with_rights_on_what_is_managed(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    user, token = "nixherd@pve", "nixherd@pve!lab"
    grants = [("/vms/110", "PVEVMAdmin"), ("/vms/9002", "PVETemplateUser"), ("/storage", "PVEDatastoreUser")]
    grants += [("/vms/104", "PVEAuditor"), ("/vms/109", "PVEAuditor"), ("/vms/111", "PVEAuditor")]
    acl = [
        {"path": path, "type": kind, "ugid": who, "roleid": role, "propagate": 1}
        for path, role in grants
        for kind, who in (("user", user), ("token", token))
    ]
    config = {"name": "dev", "description": "nixherd fleet=homelab vmid=110"}
    config |= {"scsi0": "nvmeprom:vm-110-disk-0,size=64G"}
    about = {"110": {"type": "qemu", "node": "prom", "status": "stopped", "config": config}}
    kept = {"111": {"status": "stopped", "config": {"description": "nixherd fleet=homelab vmid=111"}}}
    emulator.control("reset", patch={"acl": acl, "vms": about | kept})
    ended = nixherd("doctor")
    assert ended.status == 0, ended.out
    found = verdicts(ended.json)
    assert ("protected", "ok") in found
    assert ("breadth", "ok") in found
    assert ("clock", "unknown") in found  # it may not ask for the time: unknown, never fine
    assert "failed" not in {verdict for _, verdict in found}
    assert nixherd("doctor", "--strict").status == 1


def test_the_doctor_says_what_does_not_fit(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, name="theirs")
    emulator.control("fault", name="agent-silent", vmid=111)
    ended = nixherd("doctor", "--table")
    assert ended.status == 1
    assert "vm 110 on prom exists but is not this fleet's: its name is theirs, not dev" in ended.out
    assert "the agent of vm 111 (kept) does not answer" in ended.out


# The command as a program


PROGRAM = [sys.executable, "-c", "from nixherd.cli.main import main; main()"]


def test_ctrl_c_leaves_the_task_and_names_it(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, task_seconds={"vzdump": 8})
    with subprocess.Popen(
        # A background job's children inherit that SIGINT is ignored; a terminal's do not.
        ["env", "--default-signal=INT", *PROGRAM, "vm", "backup", "dev"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any("/tasks/UPID" in row["path"] for row in emulator.requests()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    [upid] = [task.upid for task in emulator.client().tasks("prom", vmid=110)]
    assert f"task {upid} goes on; follow it with: nixherd vm log --follow {upid}" in err
    assert "Traceback" not in err


def test_progress_is_the_tasks_own(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, task_seconds={"vzdump": 3})
    done = nixherd("backup", "dev")
    assert done.status == 0
    assert "vm 110 (dev): INFO:  " in done.err
    assert "%" in done.err


def test_completion_knows_commands_and_guests(nixherd: Nixherd, programs: Programs, emulator: Emulator) -> None:
    def complete(*words: str) -> list[str]:
        environment = {**os.environ, "_NIXHERD_COMPLETE": "bash_complete"}
        environment |= {"COMP_WORDS": " ".join(["nixherd", *words]), "COMP_CWORD": str(len(words))}
        done = subprocess.run(
            "nixherd", env=programs(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert "shutdown" in complete("vm", "sh")
    assert complete("vm", "shutdown", "d") == ["dev", "doc1"]
    assert complete("vm", "shutdown", "do") == ["doc1"]  # from what was kept
    assert emulator.requests() == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_scripts_of_their_shells(shell: str, tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, "completion", shell], capture_output=True, text=True, check=True)
    assert "_NIXHERD_COMPLETE" in done.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, capture_output=True)


def test_help_lists_the_exit_codes() -> None:
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert "3  refused by the guard or for want of a signature, nothing was sent" in done.stdout
    assert json.dumps(130) in done.stdout
