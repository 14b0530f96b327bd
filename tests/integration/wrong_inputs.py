"""Wrong inputs, each with every line that its author is told.

What the fleet's files may get wrong is told in full by tests/nixherd/test_wrong_fleets.py; here are a few of
them, and everything that only the hypervisor, the flake, the token or the command line can get wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DEFINITIONS, HOSTS, FLAKE = "vms/definitions.nix", "hosts.nix", "flake.nix"
CONFIGURATION, DISKO = "hosts/dev/configuration.nix", "hosts/dev/disko.nix"
PLACEHOLDER = 'publicKey = "placeholder: set when the machine has been installed";'
SOMEBODYS_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J"
IMPORTS = "imports = [\n    ./disko.nix"
FOREIGN = {"type": "qemu", "node": "prom", "status": "stopped", "config": {"name": "dev", "memory": "512"}}
NOT_OURS = (
    "vm 110 on prom exists but is not this fleet's: its notes lack the line `nixherd fleet=homelab vmid=110`; "
    "`nixherd vm adopt dev 110` shows how it differs from its definition and puts that line there, or give managed.dev "
    "another VMID in vms/definitions.nix"
)
FINGERPRINT = 'fingerprint = "@FINGERPRINT"'
NO_SECRET = "00000000-0000-0000-0000-000000000000"
REFUSED_TOKEN = (
    "GET /version: Authentication failed! (401); the server does not accept token nixherd@pve!lab: check the token "
    "file, and on the node whether it is there and has not expired: `pveum user token list nixherd@pve`"
)


@dataclass(frozen=True)
class Wrong:
    """One wrong input, and every line that its author is told.

    `patch` is of the lab's start state, `edits` are (file, old, new) and `files` further ones of the fleet's copy,
    `token` is the token file's text and `mode`, `data` are pyinfra's, `command` instead of provisioning dev.
    @FLEET, @HOME, @TOKEN and @FINGERPRINT in `says` are the lab's; @FINGERPRINT and @SECRET in `token` too.
    """

    name: str
    says: tuple[str, ...]
    patch: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] = field(default_factory=dict)
    edits: tuple[tuple[str, str, str], ...] = ()
    files: tuple[str, ...] = ()
    token: str | None = None
    mode: int = 0o600
    data: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("deploys/provision.py", "--limit", "dev")


NO_STORAGE = (
    "no storage {0} on prom is visible to the API token; correct managed.dev.storage, or on the node, grant "
    "PVEDatastoreUser to token and user: `pveum acl modify /storage/{0} --roles PVEDatastoreUser --tokens TOKEN "
    "--users USER`"
)


def fleet(name: str, edit: tuple[str, str, str], *says: str, token: str | None = None) -> Wrong:
    return Wrong(name, says, edits=(edit,), token=token)


def token_of(known: str, *, server: str = "10.77.0.1:8006", secret: str = "@SECRET") -> str:
    """A token file's text; @SECRET is the lab's."""
    return f'server = "{server}"\n{known}\ntoken = "nixherd@pve!lab={secret}"\n'


def template(name: str, says: str, **config: Any) -> Wrong:
    return Wrong(name, (says,), patch={"vms": {"9002": {"config": config}}})


def fewer_rights(state: dict[str, Any]) -> dict[str, Any]:
    """Nobody may start a VM, and nobody allocate on the storage."""
    role = [privilege for privilege in state["roles"]["Nixherd"] if privilege != "VM.PowerMgmt"]
    return {
        "roles": {"Nixherd": role},
        "acl": [entry for entry in state["acl"] if not entry["path"].startswith("/storage")],
    }


FLEET_FILES = [
    fleet(
        "syntax error",
        (HOSTS, 'sshAlias = "dev";', 'sshAlias = "dev"'),
        "hosts.nix:87:10: syntax error, unexpected '=', expecting ';'; correct the Nix there",
    ),
    fleet(
        "VMID twice",
        (DEFINITIONS, "vmid = 110;", "vmid = 104;"),
        "vms/definitions.nix: managed.dev.vmid: 104 is also imported.doc1.vmid; give each guest a VMID of its own",
    ),
    fleet(
        "VMID out of range",
        (DEFINITIONS, "vmid = 110;", "vmid = 310;"),
        "vms/definitions.nix: managed.dev.vmid: 310 is in no range for a VM; take one of production (100 to 199), "
        "such as 100",
    ),
    fleet(
        "unknown nixosConfig",
        (DEFINITIONS, 'nixosConfig = "dev"', 'nixosConfig = "dve"'),
        "vms/definitions.nix: managed.dev.nixosConfig: hosts.nix has no host 'dve'; did you mean dev?",
    ),
    fleet(
        "wrong key",
        (HOSTS, PLACEHOLDER, 'publicKey = "ssh-ed25519 AAAA";'),
        "hosts.nix: dev.publicKey: no SSH public key: its base64 is cut off or damaged; copy the line from the "
        'machine\'s /etc/ssh/ssh_host_ed25519_key.pub, or write "placeholder"',
    ),
    fleet(
        "no configuration file",
        (HOSTS, "./hosts/dev/configuration.nix", "./hosts/dve/configuration.nix"),
        "hosts.nix: dev.configurationFile: @FLEET/hosts/dve/configuration.nix does not exist; create the file or "
        "correct the path",
    ),
    fleet(
        "no size",
        (DEFINITIONS, 'disk = "64G"', 'disk = "64"'),
        "vms/definitions.nix: managed.dev.disk: '64' is not a size; write a number and its unit, such as 64G",
    ),
    Wrong(
        "no fleet",
        ("/nowhere: no such directory; FLEET names the directory of the fleet's flake",),
        environment={"FLEET": "/nowhere"},
    ),
    Wrong(
        "unknown limit",
        ("--limit dve: no host or group has this name; the nearest are dev",),
        command=("deploys/provision.py", "--limit", "dve"),
    ),
]

TOKENS = [
    Wrong(
        "no token file",
        (
            "token file /nowhere: missing; make an API token and run: nixherd token add, or name another file with "
            "PROXMOX_TOKEN_FILE",
        ),
        environment={"PROXMOX_TOKEN_FILE": "/nowhere"},
    ),
    Wrong(
        "no token file, ad hoc",
        (
            "token file /nowhere: missing; make an API token and run: nixherd token add, or name another file with "
            "PROXMOX_TOKEN_FILE",
        ),
        environment={"PROXMOX_TOKEN_FILE": "/nowhere"},
        command=("--limit", "dev", "exec", "--", "true"),
    ),
    Wrong(
        "token others can read",
        ("token file @TOKEN: group or others may use it (mode 0640); run: chmod 600 @TOKEN",),
        token=token_of(FINGERPRINT, secret=NO_SECRET),
        mode=0o640,
    ),
    Wrong(
        "malformed token",
        ("token file @TOKEN: token is not of the form USER@REALM!TOKENID=UUID; run: nixherd token add --replace",),
        token=token_of(FINGERPRINT, secret="00000000"),
    ),
    Wrong(
        "token of no server",
        ("token file @TOKEN: it does not say which server the token belongs to; run: nixherd token add --replace",),
        token=f"nixherd@pve!lab={NO_SECRET}\n",
    ),
    Wrong("wrong secret", (REFUSED_TOKEN,), token=token_of(FINGERPRINT, secret=NO_SECRET)),
    Wrong("expired token", (REFUSED_TOKEN,), patch={"users": {"nixherd@pve": {"tokens": {"lab": {"expire": 1}}}}}),
    Wrong(
        "token that may not",
        (
            NO_STORAGE.format("nvmeprom"),
            "the API token lacks VM.PowerMgmt on /vms/110; on the node, grant a role with it to token and user: "
            "`pveum acl modify /vms/110 --roles ROLE --tokens TOKEN --users USER`",
        ),
        patch=fewer_rights,
    ),
]

ENDPOINTS = [
    fleet(
        "another certificate than the token's",
        (DEFINITIONS, 'fingerprint = "', f'fingerprint = "{"00:" * 31}00"; # "'),
        "token nixherd@pve!lab knows 10.77.0.1:8006 by its certificate's SHA-256 @FINGERPRINT, and vms/definitions.nix "
        f"by its certificate's SHA-256 {'00:' * 31}00: nothing was sent; correct proxmox there, or if that is the "
        "server you mean, run: nixherd token add --replace",
    ),
    fleet(
        "another server than the token's",
        (DEFINITIONS, "fingerprint =", "port = 8007; fingerprint ="),
        "token nixherd@pve!lab belongs to 10.77.0.1:8006, and vms/definitions.nix names 10.77.0.1:8007: nothing was "
        "sent; correct proxmox there, or if that is the server you mean, run: nixherd token add --replace",
    ),
    fleet(
        "another certificate",
        (DEFINITIONS, 'fingerprint = "', f'fingerprint = "{"00:" * 31}00"; # "'),
        "10.77.0.1:8006 shows a certificate with SHA-256 fingerprint @FINGERPRINT, the token's file says "
        f"{'00:' * 31}00; nothing was sent: compare with `pvenode cert info` on the node itself, and if it was "
        "renewed, correct proxmox.fingerprint and run: nixherd token add --replace",
        token=token_of(f'fingerprint = "{"00:" * 31}00"'),
    ),
    fleet(
        "unknown CA",
        (DEFINITIONS, "fingerprint =", "note ="),
        "10.77.0.1:8006: certificate verify failed: self-signed certificate; nothing was sent: set "
        "proxmox.fingerprint (`pvenode cert info` on the node shows it) or proxmox.caFile in vms/definitions.nix",
        token=token_of('authorities = "system"'),
    ),
    fleet(
        "CA file that is none",
        (DEFINITIONS, "fingerprint =", "caFile = ../hosts.nix; note ="),
        "proxmox.caFile @FLEET/hosts.nix in vms/definitions.nix cannot be used: it holds no certificate; name a "
        "PEM file, or give a fingerprint instead",
    ),
    fleet(
        "nobody there",
        (DEFINITIONS, "fingerprint =", "port = 8007; fingerprint ="),
        "cannot connect to https://10.77.0.1:8007 (Connection refused); nothing was sent, is the node up and "
        "`proxmox.host` right?",
        token=token_of(FINGERPRINT, server="10.77.0.1:8007"),
    ),
    fleet(
        "unknown node",
        (DEFINITIONS, 'node = "prom"', 'node = "porm"'),
        "vms/definitions.nix: proxmox.node: node porm does not exist; name one of prom",
    ),
]

HYPERVISOR = [
    Wrong(
        "no template",
        ("template 9002 does not exist on prom; make it, or correct template.vmid in vms/definitions.nix",),
        patch={"vms": {"9002": None}},
    ),
    template(
        "no template but a VM",
        "vm 9002 on prom is not a template; convert it (`qm template 9002`) or correct template.vmid",
        template=None,
    ),
    template(
        "template without a disk",
        "template 9002 on prom boots from no disk; import or name one: `qm set 9002 --boot order=scsi0`",
        scsi0=None,
    ),
    template(
        "template without an agent",
        "template 9002 on prom has no guest agent; install it there, `qm set 9002 --agent 1`",
        agent="0",
    ),
    template(
        "template without cloud-init",
        "template 9002 on prom has no cloud-init drive; add one: `qm set 9002 --ide2 STORAGE:cloudinit`",
        ide2=None,
    ),
    template(
        "firmware that cannot start the boot loader",
        "dev: its configuration installs systemd-boot, which needs bios ovmf, but template 9002 has seabios and would "
        "not boot; change one of the two",
        bios="seabios",
    ),
    template(
        "a disk that would have to shrink",
        "vm 110 (dev): its template's scsi0 has 80G, vms/definitions.nix wants 64G; disks are never shrunk, correct "
        "managed.dev.disk",
        scsi0="nvmeprom:base-9002-disk-1,size=80G",
    ),
    fleet(
        "a disk of another name",
        (DISKO, "/dev/sda", "/dev/vda"),
        "dev: disko formats /dev/vda, but the disk scsi0 of vm 110 (dev) is /dev/sda in the guest; correct disko's "
        "device or the disk's bus",
    ),
    Wrong(
        "storage full",
        ("storage nvmeprom on prom has 9.0 GiB free, managed.dev needs 64.0 GiB; make room, or name another storage",),
        patch={"storages": {"nvmeprom": {"avail": 9 << 30}}},
    ),
    fleet(
        "unknown storage",
        (DEFINITIONS, 'storage = "nvmeprom";\n      nixosConfig', 'storage = "nvme";\n      nixosConfig'),
        NO_STORAGE.format("nvme"),
    ),
    Wrong("VMID of somebody else's VM", (NOT_OURS,), patch={"vms": {"110": FOREIGN}}),
    Wrong(
        "VMID of somebody else's running VM",
        (
            "vm 110 on prom exists but is not this fleet's: its name is theirs, not dev; give managed.dev another "
            "VMID in vms/definitions.nix",
        ),
        patch={"vms": {"110": {**FOREIGN, "status": "running", "config": {"name": "theirs"}}}},
    ),
    Wrong(
        "VMID of a copy of ours",
        (NOT_OURS,),
        patch={"vms": {"110": {**FOREIGN, "config": {"name": "dev", "description": "nixherd fleet=homelab vmid=111"}}}},
    ),
    Wrong(
        "VMID of a container",
        ("VMID 110 is taken by a container (dev) on prom; give managed.dev another one in vms/definitions.nix",),
        patch={"vms": {"110": {**FOREIGN, "type": "lxc"}}},
    ),
    fleet(
        "readonly and not there",
        (DEFINITIONS, "vmid = 110;", "vmid = 110; readonly = true;"),
        "vm 110 (dev) is readonly in vms/definitions.nix; refusing to clone template 9002 to vm 110 (dev) on nvmeprom "
        "(edit the definitions if it may change)",
    ),
]

FLAKES = [
    fleet(
        "no such configuration",
        (FLAKE, "lib.filterAttrs isNixos allHosts", 'lib.filterAttrs (id: _: id != "dev" && isNixos id _) allHosts'),
        "@FLEET/flake.nix: it has no nixosConfigurations.dev; add it",
    ),
    fleet(
        "undefined variable",
        (CONFIGURATION, "services.qemuGuest.enable = true", "services.qemuGuest.enable = yes"),
        "hosts/dev/configuration.nix:12:31: undefined variable 'yes'; correct the Nix there",
    ),
    fleet(
        "another type",
        (CONFIGURATION, "services.qemuGuest.enable = true", 'services.qemuGuest.enable = "yes"'),
        "hosts/dev/configuration.nix:12:3: A definition for option `services.qemuGuest.enable' is not of type "
        '`boolean\': "yes"; correct the Nix there',
    ),
    fleet(
        "an assertion",
        (CONFIGURATION, "services.", 'assertions = [{ assertion = false; message = "not\\nso"; }]; services.'),
        "@FLEET: Nix cannot evaluate the fleet: Failed assertions: - not so",
    ),
    Wrong(
        "a file that git does not know",
        (
            "hosts/dev/configuration.nix:4:17: path 'hosts/dev/new.nix' does not exist; `git add hosts/dev/new.nix`, "
            "Nix sees only what git knows",
        ),
        edits=((CONFIGURATION, IMPORTS, f"{IMPORTS} ./new.nix"),),
        files=("hosts/dev/new.nix",),
    ),
    fleet(
        "no installer",
        (FLAKE, "kexec-installer = import", "installer = import"),
        "@FLEET/flake.nix: it has no packages.x86_64-linux.kexec-installer; add the installer of nixos-images, as the "
        "reference fleet does in nix/installer.nix, or give an image "
        "(--kexec FILE, or --kexec URL --kexec-sha256 HASH)",
    ),
    fleet(
        "no packages",
        (FLAKE, "packages.${system} = ", "installers = "),
        "@FLEET/flake.nix: it has no packages.x86_64-linux.kexec-installer; add the installer of nixos-images, as the "
        "reference fleet does in nix/installer.nix, or give an image "
        "(--kexec FILE, or --kexec URL --kexec-sha256 HASH)",
    ),
    fleet(
        "a key that is not here",
        (HOSTS, PLACEHOLDER, f'publicKey = "{SOMEBODYS_KEY}";'),
        "@FLEET/hosts.nix: dev.publicKey: its private half is not in @HOME/.local/state/nixherd/homelab/dev/"
        "ssh_host_ed25519_key; put it there, or a placeholder here to have a new key made",
    ),
    Wrong(
        "an extra file that is not there",
        ("dev: extra_files: /nowhere/x is not there; correct the path of the local file",),
        data=('extra_files={"/etc/x": "/nowhere/x"}',),
    ),
    Wrong(
        "a hardware configuration that is not there",
        ("@FLEET/hosts/dev/hw.nix: not there; create it (an empty module, { }, will do) and `git add` it",),
        data=("hardware_configuration=hosts/dev/hw.nix",),
    ),
]

NOT_FOR_US = [
    Wrong(
        "an imported VM",
        (
            "not reached yet: no SSH at proxmox-vm: Temporary failure in name resolution; no SSH at doc1: Temporary "
            "failure in name resolution",
            "vm 104 (doc1) is imported.doc1 in vms/definitions.nix: documented, never changed; refusing to "
            "provision it",
        ),
        command=("deploys/provision.py", "--limit", "doc1"),
    ),
]

WRONG = FLEET_FILES + TOKENS + ENDPOINTS + HYPERVISOR + FLAKES + NOT_FOR_US
