"""deploys/proxmox_host.py on a Debian machine of the lab, by pyinfra and real SSH, with the emulated API beside it."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.ssh_keys import generate_ed25519
from tests.nixherd.cli.conftest import DEFINITIONS
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.operations.proxmox_node import BOOT, FORBIDDEN, GRUB, KERNEL, NEXT, ROOT, Node
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

MAPPING = "node=prom,path=0000:79:00.0,id=1002:13c0,iommugroup=14"
WANTED = '{"igp": {"hostpci0": "mapping=igpu,pcie=1"}}'


def guests(emulator: Emulator, *, mapping_rights: bool = True, audit: bool = True) -> None:
    """104 and 109 run on the node; 109 is given a device by another address than it has."""
    vm = {"type": "qemu", "node": "prom", "status": "running"}
    vms = {
        "104": {**vm, "config": {"name": "proxmox-vm", "cores": 2}},
        "109": {**vm, "config": {"name": "igpu", "hostpci0": "0000:79:00.0,pcie=1"}},
        "111": {**vm, "config": {"name": "kept"}, "status": "stopped"},
    }
    more = [("/mapping/pci", "PVEMappingUser")] if mapping_rights else []
    more += [("/vms", "PVEAuditor")] if audit else []
    emulator.control("reset", patch={"vms": vms, "pci_mappings": {"igpu": {"map": [MAPPING]}}, "acl": granted(*more)})


@pytest.fixture
def node(
    sshd: Sshd,
    emulator: Emulator,
    make_fleet: Callable[..., Path],
    tmp_path: Path,
    programs: Callable[[dict[str, str]], dict[str, str]],
) -> Node:
    guests(emulator)
    there = f'host = "127.0.0.1"; port = {emulator.port}; fingerprint = "{emulator.fingerprint}"'
    fleet = make_fleet(definitions=DEFINITIONS.replace('host = "127.0.0.1"', there))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "FLEET": str(fleet), "PROXMOX_TOKEN_FILE": str(token)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # pyinfra's, with REAL_PROGRAMS too
    for name in ("XDG_STATE_HOME", "SSH_AUTH_SOCK"):
        environment.pop(name, None)
    return Node(sshd, generate_ed25519("root@prom"), home, programs(environment))


@pytest.mark.slow
def test_from_a_plain_node_to_one_that_passes_its_card_through(node: Node) -> None:
    node.start().pin()
    before = node.files()

    planned = node.deploy("--dry", hostpci=WANTED)
    assert planned.status == 0, planned.text
    for step in (
        f"build and install vendor-reset 0.1.1 from /usr/local/src/vendor-reset for {KERNEL}, {NEXT}",
        "write /etc/modprobe.d/nixherd-vfio.conf, /etc/modules-load.d/nixherd-vfio.conf",
        "/etc/modprobe.d/nixherd-vfio.conf: options vfio-pci ids=1002:13c0,1002:1640",
        f"make the initramfs of {KERNEL}, {NEXT} anew",
        "/etc/default/grub: intel_iommu=on is added to: quiet mitigations=auto",
        "tell the kernel intel_iommu=on in /etc/default/grub",
    ):
        assert step in planned.said
    assert (node.files(), node.asked) == (before, [])

    done = node.deploy(hostpci=WANTED)
    assert done.status == 0, done.text
    assert node.run("cat /etc/default/grub") == GRUB.replace("mitigations=auto", "mitigations=auto intel_iommu=on")
    for kernel in (KERNEL, NEXT):
        assert node.run(f"cat /lib/modules/{kernel}/updates/dkms/vendor-reset.ko") == "one\n"
    assert "ids=1002:13c0,1002:1640" in node.run(f"cat /boot/initrd.img-{NEXT}")
    asked = node.asked
    [install] = [line for line in asked if line.startswith("apt-get")]
    assert "--no-remove --no-upgrade" in install
    assert install.split()[-4:] == [
        "dkms", "proxmox-default-headers", f"proxmox-headers-{NEXT}", f"proxmox-headers-{KERNEL}"
    ]  # fmt: skip
    assert not {line.split()[0] for line in asked} & set(FORBIDDEN.split())
    [due] = [line for line in done.said.splitlines() if line.startswith("a boot of prom is due")]
    assert due == "a boot of prom is due; nixherd never boots a node. It stops VM 104 (proxmox-vm), VM 109 (igpu)"
    for line in (
        f"read back: the next kernel is {NEXT}, told intel_iommu=on; "
        f"vendor-reset 0.1.1 is installed for {KERNEL}, {NEXT}",
        "the running kernel was not told intel_iommu=on",
        "not loaded: vfio, vfio_iommu_type1, vfio_pci",
        "0000:7a:00.0 (1002:13c0) is driven by amdgpu, not by vfio-pci",
        "not loaded: vendor-reset",
        f"the next boot brings kernel {NEXT}; {KERNEL} runs",
        "VM 109 (igp): hostpci0 is 0000:79:00.0,pcie=1, wanted is mapping=igpu,pcie=1",
        "  for a person, as root on prom: qm set 109 --hostpci0 mapping=igpu,pcie=1",
        "PCI mapping igpu: path is 0000:79:00.0, the node has 0000:7a:00.0",
        "  for a person, as root on prom: pvesh set /cluster/mapping/pci/igpu "
        "--map node=prom,path=0000:7a:00.0,id=1002:13c0,iommugroup=14",
    ):
        assert line in done.said, done.said

    after = node.files()
    # as a kill between two steps leaves it: the boot loader not told, the initramfs begun, a module not installed
    node.run("sed -i 's/ intel_iommu=on//' /boot/grub/grub.cfg; : >/var/lib/nixherd/proxmox-host/initramfs")
    node.run("rm -r /var/lib/dkms/vendor-reset/0.1.1/*-pve")
    ended = node.deploy(hostpci=WANTED)
    assert (ended.status, node.files()) == (0, after), ended.text
    asked = node.asked
    assert "update-grub " in asked
    initramfs = [line for line in asked if line.startswith("update-initramfs")]
    assert initramfs == [f"update-initramfs -u -k {kernel}" for kernel in (KERNEL, NEXT)]
    assert f"dkms install -m vendor-reset -v 0.1.1 -k {NEXT} --force" in asked
    assert node.run("ls /var/lib/nixherd/proxmox-host") == ""

    node.run(BOOT)
    booted = node.deploy(hostpci=WANTED)
    assert (booted.status, booted.changes, node.asked, node.files()) == (0, [], [], after), booted.text
    assert "all of it is in effect" in booted.said
    assert "is due" not in booted.said


@pytest.mark.slow
def test_what_fails_leaves_what_worked(node: Node) -> None:
    """A source that does not build leaves the module that was; an update-grub that fails, the file that was."""
    node.start(setup=": >/run/node/grub-fails").pin()
    failed = node.deploy()
    assert failed.status != 0
    assert "update-grub failed; /etc/default/grub is back as it was" in failed.said
    assert node.run("cat /etc/default/grub") == GRUB
    assert "iommu" not in node.run("cat /boot/grub/grub.cfg")

    node.run("rm /run/node/grub-fails; echo broken >/usr/local/src/vendor-reset/a.c")
    failed = node.deploy()
    assert failed.status != 0
    assert "Bad return status for module build" in failed.said
    assert node.run(f"cat /lib/modules/{NEXT}/updates/dkms/vendor-reset.ko") == "one\n"
    assert node.run("ls /var/tmp") == ""

    node.run("echo two >/usr/local/src/vendor-reset/a.c")
    done = node.deploy()
    assert done.status == 0, done.text
    assert node.run(f"cat /lib/modules/{NEXT}/updates/dkms/vendor-reset.ko") == "two\n"


@pytest.mark.slow
def test_by_proxmox_boot_tool_and_without_an_api(node: Node, emulator: Emulator) -> None:
    tool = "System currently booted with uefi\nA1B2-C3D4 is configured with: uefi (versions: 6.14.8-2-pve)"
    node.start(
        setup=f"""
mkdir -p /etc/kernel; echo A1B2-C3D4 >/etc/kernel/proxmox-boot-uuids; echo '{tool}' >/run/node/tool
echo 'root=ZFS=rpool/ROOT/pve-1 boot=zfs' >/etc/kernel/cmdline; echo {KERNEL} >/etc/kernel/proxmox-boot-pin
printf 'vendor_id\\t: AuthenticAMD\\n' >/run/node/cpuinfo
"""
    ).pin()
    guests(emulator, mapping_rights=False, audit=False)
    done = node.deploy(kernel_words="iommu=pt", hostpci=WANTED)
    assert done.status == 0, done.text
    assert node.run("cat /etc/kernel/cmdline") == "root=ZFS=rpool/ROOT/pve-1 boot=zfs iommu=pt\n"
    assert node.run("cat /etc/default/grub") == GRUB
    assert "proxmox-boot-tool refresh" in node.asked
    assert "what systemd-boot by proxmox-boot-tool has could not be read, and is unknown" in done.said
    assert (
        f"vendor-reset 0.1.1 from /usr/local/src/vendor-reset for {KERNEL}" in done.said
    )  # pinned: the other is not booted
    assert "others may run there that this token may not see (VM.Audit on /vms" in done.said
    assert re.search(r"PCI mapping igpu: unknown: .*Mapping\.Audit", done.said), done.said
    gone = node.deploy(kernel_words="iommu=pt", hostpci=WANTED, proxmox_token_file="/nowhere")
    assert (gone.status, gone.changes) == (0, []), gone.text
    assert "Which guests it stops is unknown: " in gone.said
    assert re.search(r"what VM 104 \(doc1\), VM 109 \(igp\).* are given is unknown: ", gone.said), gone.said


@pytest.mark.slow
def test_what_is_refused_before_anything(node: Node) -> None:
    """One line each; what is decided on values is in tests/nixherd/proxmox/node."""
    node.start(setup="mkdir -p /etc/modprobe.d").pin()
    theirs = "/etc/modprobe.d/vfio.conf"
    cases = [
        ("hostname other", "prom: what answers calls itself other", "hostname prom"),
        (f"echo 'options vfio-pci ids=1:2' >{theirs}", f"{theirs}:1: `options vfio-pci ids=1:2` says", f"rm {theirs}"),
        ("mv /usr/local/src/vendor-reset /tmp", "vendor-reset/dkms.conf is not there: put the source", ":"),
        (
            "mv /usr/local/sbin/dpkg-query /tmp; echo ID=nixos >/etc/os-release",
            "what answers runs nixos, not Debian or Proxmox VE; nothing was done",
            ":",
        ),
    ]
    for before, why, after in cases:
        node.run(before)
        files = node.files()
        ended = node.deploy()
        assert ended.status != 0
        [line] = [line for line in ended.said.splitlines() if why in line] or [ended.text]
        assert why in line
        assert node.files() == files
        node.run(after)
    assert node.asked == []


def test_for_nodes_alone_and_nothing_else_on_them(node: Node) -> None:
    """Whom nodes.py logs in to, and by which key: tests/security/test_node_keys.py."""
    ended = node.pyinfra("-y", "--limit", "prom", "exec", "--", "true")
    assert (ended.status, "nodes.py is for deploys/proxmox_host.py" in ended.text) == (2, True), ended.text
    ended = node.pyinfra("-y", "--limit", "dev", "deploys/proxmox_host.py", inventory="inventory.py")
    assert (ended.status, "pyinfra nodes.py deploys/proxmox_host.py --limit NODE" in ended.text) == (2, True), (
        ended.text
    )
    assert "Connecting" not in ended.text
    ended = node.pyinfra("-y", "deploys/proxmox_host.py", inventory="@local")
    assert (
        ended.status,
        "@local is not a host of nodes.py, which this deploy file is for; run it as: pyinfra nodes.py" in ended.text,
    ) == (1, True), ended.text


def test_nothing_of_ours_names_what_touches_guests() -> None:
    """What is in the record of a run above is so by what is written, too."""
    parts = ["deploys/proxmox_host.py", "facts/proxmox_host.py", "operations/proxmox_host", "nixherd/proxmox/node"]
    roots = [ROOT / part for part in parts]
    files = [path for root in roots for path in (root.rglob("*") if root.is_dir() else [root])]
    texts = {path: path.read_text() for path in files if path.suffix in (".py", ".sh")}
    assert len(texts) > 8
    run = re.compile(r"(?<![\w`/.-])(qm|pct|pvesh|reboot|systemctl|shutdown)\s+[a-z-]")
    for path, text in texts.items():
        if path.name != "mapping.py":  # the lines for a person, which are printed
            code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
            assert not run.search(re.sub(r'"""[^"]*"""', "", code)), path
