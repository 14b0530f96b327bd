"""`nixherd provision` and `post-provision`: what is refused before anything, what is told, what is read back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.process import Completed
from nixherd.base.ssh_keys import generate_ed25519
from nixherd.deploy.numbers import runs
from nixherd.deploy.report import Journal
from tests.nixherd.cli.conftest import Ask
from tests.nixherd.proxmox.conftest import Emulator

SYSTEM = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos-system-dev-26.05"
VERIFIED = {"address": "192.0.2.110", "system": SYSTEM}
Note = tuple[str, str | None, dict[str, Any]]
KEY = generate_ed25519("root@dev").public
DEPLOYS = ["deploys/enroll.py", "deploys/provision.py", "deploys/post_provision.py"]


class FakePyinfra:
    """Leaves this journal behind, pins a key where it is told to, and records how it was called."""

    def __init__(self, fleet: Path, *notes: Note, status: int = 0, stderr: str = "", pins: bool = False) -> None:
        self.fleet, self.notes, self.status, self.stderr, self.pins = fleet, notes, status, stderr, pins
        self.argv: list[str] = []

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.argv = list(argv)
        [place] = [word.partition("=")[2] for word in argv if word.startswith("journal=")]
        journal = Journal(Path(place))
        for event, host, about in self.notes:
            journal.note(event, host, **about)
        for line in self.stderr.splitlines():
            options["stream"](line)
        if self.pins:
            hosts = self.fleet / "hosts.nix"
            hosts.write_text(hosts.read_text().replace('"placeholder"', f'"{KEY}"', 1))
        return Completed("", self.stderr, self.status)


def step(host: str, text: str, *, planned: bool = False) -> Note:
    return "step", host, {"text": text, "planned": planned}


def begun(*hosts: str) -> Note:
    return "run", None, {"hosts": list(hosts)}


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (("nosuch",), 2, "nosuch: no guest of vms/definitions.nix has this name, host or alias; "),
        (("dve",), 2, "dve: no guest of vms/definitions.nix has this name, host or alias; the nearest are dev"),
        (("doc1",), 3, "vm 104 (doc1) is readonly in vms/definitions.nix; refusing to provision it"),
        (("proxmox-vm",), 3, "vm 104 (doc1) is readonly in vms/definitions.nix; refusing to provision it"),
        (("igp",), 2, "vms/definitions.nix: imported.igp belongs to no host of hosts.nix; add one"),
        (("kept",), 3, "; what an earlier run left to do: nixherd post-provision kept\n"),
        (("9002",), 3, "vm 9002 is the template in vms/definitions.nix; refusing to provision it"),
        (("4711",), 3, "vm 4711 is not declared in vms/definitions.nix; refusing to provision it"),
        (("dev", "nosuch"), 2, "nosuch: no guest"),
        (("dev", "doc1"), 3, "vm 104 (doc1) is readonly"),
        ((), 2, "Missing argument 'NAME...'"),
    ],
)  # fmt: skip
def test_who_cannot_be_provisioned_is_refused_before_anything(
    ask: Ask, emulator: Emulator, words: tuple[str, ...], status: int, line: str
) -> None:
    ended = ask("provision", *words)
    assert (ended.status, ended.out) == (status, "")
    assert line in ended.err
    assert len(ended.err.splitlines()) == 1
    assert emulator.requests() == []


def test_a_host_without_a_definition_is_one_line(ask: Ask, fleet: Path, emulator: Emulator) -> None:
    definitions = fleet / "vms" / "definitions.nix"
    lines = definitions.read_text().splitlines(keepends=True)
    definitions.write_text("".join(line for line in lines if "kept =" not in line))
    for words in (("provision", "cad"), ("post-provision", "caddy")):
        ended = ask(*words)
        assert (ended.status, len(ended.err.splitlines())) == (2, 1)
        assert "caddy is a host of hosts.nix, and no guest of vms/definitions.nix is for it; declare one" in ended.err
    assert emulator.requests() == []


def test_names_of_a_guest_are_one_guest_and_all_is_one_run(ask: Ask, fleet: Path) -> None:
    found = ("found", "dev", {"verified": VERIFIED})
    fake = FakePyinfra(fleet, begun("dev"), step("dev", "start vm 110", planned=True), found, pins=True)
    fake.notes += (step("dev", "start vm 110"),)
    fake.stderr = "    [dev]        start vm 110\n"
    ended = ask("provision", "dev", "110", "--table", "--data", "boot_deadline=600", by=fake)
    assert ended.status == 0, ended.err
    assert ended.out == (
        f"dev (vm 110): in service: at 192.0.2.110 runs {SYSTEM}; hosts.nix pins its key; not readonly\n"
        "1 in service (report 1)\n"
    )
    assert "    [dev]        start vm 110\n" in ended.err
    assert fake.argv[1:8] == ["-y", "--parallel", "100", "inventory.py", *DEPLOYS]
    assert [fake.argv[at + 1] for at, word in enumerate(fake.argv) if word == "--limit"] == ["dev"]
    assert "boot_deadline=600" in fake.argv
    [row] = json.loads((runs()[-1] / "report.json").read_text())["hosts"]
    assert (row["steps"], row["verified"]) == (["start vm 110"], VERIFIED)


def test_a_plan_is_what_would_be_done(ask: Ask, fleet: Path) -> None:
    fake = FakePyinfra(fleet, begun("dev"), step("dev", "clone template 9002 to vm 110 (dev)", planned=True))
    ended = ask("provision", "dev", "--dry-run", "--table", by=fake)
    assert ended.status == 0
    assert ended.out.splitlines() == [
        "dev (vm 110): would clone template 9002 to vm 110 (dev)", "1 planned (report 1)"
    ]  # fmt: skip
    assert fake.argv[1] == "--dry"
    row = ask("provision", "dev", "--dry-run", "--json", by=fake).json["hosts"][0]
    assert (row["outcome"], row["steps"]) == ("planned", ["clone template 9002 to vm 110 (dev)"])
    nothing = FakePyinfra(fleet, begun("dev"))
    assert ask("provision", "dev", "--dry-run", "--table", by=nothing).out.startswith("dev (vm 110): nothing to do\n")


@pytest.mark.parametrize(
    ("notes", "about", "status", "why"),
    [
        ((begun("dev"), ("end", "dev", {"why": "no room", "exit": 2})), {"status": 2}, 2, "no room"),
        ((begun("dev"),), {"status": 4}, 4, "pyinfra ended with status 4"),
        # it says that all went well, and nothing of it is to be seen
        ((begun("dev"),), {}, 1, "hosts.nix pins no key of dev; what runs there was not read back"),
        ((begun("dev"),), {"pins": True}, 1, "what runs there was not read back"),
        ((begun("dev"), ("found", "dev", {"verified": VERIFIED})), {}, 1, "hosts.nix pins no key of dev"),
    ],
)
def test_nothing_is_in_service_that_was_not_read_back(
    ask: Ask, fleet: Path, notes: tuple[Note, ...], about: dict[str, Any], status: int, why: str
) -> None:
    ended = ask("provision", "dev", "--json", by=FakePyinfra(fleet, *notes, **about))
    assert (ended.status, ended.json["exit"]) == (status, status)
    [row] = ended.json["hosts"]
    assert (row["outcome"], row["why"]) == ("failed", why)


def test_a_guest_whose_definition_went_away_meanwhile_is_not_in_service(ask: Ask, fleet: Path) -> None:
    class Removes(FakePyinfra):
        def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
            definitions = fleet / "vms" / "definitions.nix"
            definitions.write_text(definitions.read_text().replace("dev = {", "other = {", 1))
            return super().__call__(argv, **options)

    by = Removes(fleet, begun("dev"), ("found", "dev", {"verified": VERIFIED}), pins=True)
    ended = ask("provision", "dev", "--json", by=by)
    assert (ended.status, ended.json["hosts"][0]["readonly"]) == (1, None)
    assert ended.json["hosts"][0]["why"] == "vms/definitions.nix does not declare dev any more"


def test_a_run_that_never_began_says_why(ask: Ask, fleet: Path) -> None:
    ended = ask("provision", "dev", by=FakePyinfra(fleet, status=2, stderr="--data x=1: nobody asks for it\n"))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == "--data x=1: nobody asks for it"


def test_what_is_said_of_a_vm_is_compared_and_never_believed(ask: Ask, fleet: Path, emulator: Emulator) -> None:
    for words, status, line in (
        (("--vmid", "111"), 2, "--vmid 111: vms/definitions.nix declares imported.doc1 as vm 104; correct one of"),
        (("--ip", "192.0.2"), 2, "--ip 192.0.2 is not an address; write one like 192.0.2.10, or leave it out"),
        (("--ip", "192.0.2.9"), 2, "--ip 192.0.2.9: vm 104 (doc1) on prom is not there, its net0 ("),
        (("--ip", "127.0.0.1"), 2, "--ip 127.0.0.1: vm 104 (doc1) on prom is not there"),
    ):
        ended = ask("post-provision", "doc1", *words)
        assert (ended.status, ended.out) == (status, "")
        assert line in ended.err
        assert len(ended.err.splitlines()) == 1
    assert ") has 2001:db8::104, 192.0.2.104\n" in ask("post-provision", "doc1", "--ip", "192.0.2.9").err
    fake = FakePyinfra(fleet, begun("proxmox-vm"))
    ended = ask("post-provision", "doc1", "--ip", "192.0.2.104", "--vmid", "104", "--table", by=fake)
    assert ended.status == 0
    assert ended.out.splitlines()[0] == "proxmox-vm (vm 104): in service: hosts.nix pins its key; readonly"
    assert fake.argv[4:6] == ["inventory.py", "deploys/post_provision.py"]

    emulator.control("fault", name="agent-silent", vmid=104)
    silent = ask("post-provision", "doc1", "--ip", "192.0.2.104")
    assert silent.status == 4
    assert "the address of vm 104 (doc1) is not known: " in silent.err
    gone = ask("post-provision", "dev", "--vmid", "110")
    assert (gone.status, gone.err) == (4, "vm 110 (dev) does not exist on prom; provision it first\n")
    assert emulator.changes() == []
