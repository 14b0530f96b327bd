"""A table of wrong fleets, each with the whole of what its author is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetInvalid
from nixherd.fleet.load import load_fleet

MakeFleet = Callable[..., Path]
Edit = tuple[str, str]

DEV_KEY = 'publicKey = "placeholder";'
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY"
HOST_KEY_REMEDY = 'copy the line from the machine\'s /etc/ssh/ssh_host_ed25519_key.pub, or write "placeholder"'
MISSING = "create the file or correct the path"
PATH_REMEDY = "write a path without quotes, such as ./hosts/NAME/home.nix"
ONE_NAME = "a name belongs to one host alone"
DISK_REMEDY = "write a number and its unit, such as 64G"
VMID_REMEDY = "write its VMID, an integer from 100"
PRODUCTION = "take one of production (100 to 199), such as 100"
FLAG_REMEDY = "write true or false; without the flag an imported guest is readonly"

HOSTS_NIX: list[tuple[str, Edit, str]] = [
    ("hostname twice", ('hostname = "caddy"', 'hostname = "DEV"'),
     f"hosts.nix: caddy.hostname: 'DEV' is also the id of host dev; {ONE_NAME}"),
    ("alias twice", ('sshAlias = "cad"', 'sshAlias = "doc1"'),
     f"hosts.nix: proxmox-vm.sshAlias: 'doc1' is also the sshAlias of caddy; {ONE_NAME}"),
    ("alias that is another's id", ('sshAlias = "cad"', 'sshAlias = "proxmox-vm"'),
     f"hosts.nix: caddy.sshAlias: 'proxmox-vm' is also the id of host proxmox-vm; {ONE_NAME}"),
    ("alias that is a group", ('sshAlias = "cad"', 'sshAlias = "nixos"'),
     "hosts.nix: caddy.sshAlias: 'nixos' is the name of a group of the inventory; choose another"),
    ("id that is a group", ("caddy = {", "managed = {"),
     "hosts.nix: managed: 'managed' is the name of a group of the inventory; give the host another id"),
    ("id with a blank", ("caddy = {", '"my caddy" = {'),
     "hosts.nix: my caddy: is not a name for a host; use letters, digits, '-', '_' and '.'"),
    ("id of two lines", ("caddy = {", '"a\\nb" = {'),
     "hosts.nix: 'a\\nb': is not a name for a host; use letters, digits, '-', '_' and '.'"),
    ("bad hostname", ('hostname = "caddy"', 'hostname = "-caddy.$(id)"'),
     "hosts.nix: caddy.hostname: '-caddy.$(id)' is not a hostname; "
     "write letters, digits and '-', at most 63 between dots"),
    ("hostname that is not a string", ('hostname = "caddy"', "hostname = 12"),
     "hosts.nix: caddy.hostname: is an integer, not a string; write letters, digits and '-', at most 63 between dots"),
    ("bad user", ('sshAlias = "cad";\n    user = "abl030"', 'sshAlias = "cad";\n    user = "a b"'),
     "hosts.nix: caddy.user: 'a b' is not a user name; write a login name"),
    ("relative home", ('homeDirectory = "/home/abl030";\n    publicKey = null', 'homeDirectory = "~"'),
     "hosts.nix: caddy.homeDirectory: is not an absolute path; write it like /home/USER"),
    ("key with the wrong type word", (DEV_KEY, f'publicKey = "{ED25519.replace("ssh-ed25519", "ssh-rsa", 1)}";'),
     "hosts.nix: dev.publicKey: no SSH public key: its type word says ssh-rsa, its base64 says ssh-ed25519; "
     + HOST_KEY_REMEDY),
    ("key cut off", (DEV_KEY, f'publicKey = "{ED25519[:-4]}";'),
     f"hosts.nix: dev.publicKey: no SSH public key: its base64 is cut off or damaged; {HOST_KEY_REMEDY}"),
    ("key that is a private one", (DEV_KEY, 'publicKey = "-----BEGIN OPENSSH PRIVATE KEY-----\\nc2VjcmV0";'),
     f"hosts.nix: dev.publicKey: no SSH public key: it is more than one line; {HOST_KEY_REMEDY}"),
    ("key that is a path", (DEV_KEY, "publicKey = ./key.pub;"),
     f"hosts.nix: dev.publicKey: is a path, not a string; {HOST_KEY_REMEDY}"),
    ("an authorized key that is none", ("operator\" ]", "operator\" \"ssh-ed25519 nonsense\" ]"),
     "hosts.nix: caddy.authorizedKeys[1] (and 2 more): no SSH public key: its base64 is cut off or damaged; "
     "write the line of a .pub file, or remove it"),
    ("authorized keys that are no list", ("masterKeys = [", "masterKeys = toString ["),
     "\n".join(f"hosts.nix: {name}.authorizedKeys: is a string, not a list; write a list of SSH public keys"
               for name in ("caddy", "dev", "proxmox-vm"))),
    ("configuration that is not there", ("./hosts/dev/configuration.nix", "./hosts/dev/configuraton.nix"),
     f"hosts.nix: dev.configurationFile: DIR/hosts/dev/configuraton.nix does not exist; {MISSING}"),
    ("home file that is not there", ("./hosts/caddy/home.nix", "./hosts/cady/home.nix"),
     f"hosts.nix: caddy.homeFile: DIR/hosts/cady/home.nix does not exist; {MISSING}"),
    ("configuration in quotes", ("./hosts/dev/configuration.nix", '"./hosts/dev/configuration.nix"'),
     f"hosts.nix: dev.configurationFile: is a string, not a path; {PATH_REMEDY}"),
    ("nothing to configure", ("homeFile = ./hosts/caddy/home.nix;", ""),
     "hosts.nix: caddy.homeFile: missing, so is configurationFile, and the flake has neither nixosConfigurations nor "
     "homeConfigurations of this name; add one of the files, both for a NixOS host, or the configuration"),
    ("a flag in quotes", ("sudoPasswordless = true", 'sudoPasswordless = "true"'),
     "hosts.nix: proxmox-vm.sudoPasswordless: is a string, not a boolean; write true or false"),
    ("a hash that is not a string", ("sudoPasswordless = true", "initialHashedPassword = 5"),
     "hosts.nix: proxmox-vm.initialHashedPassword: is an integer, not a string; write a string"),
    ("a host that is not a set", ("caddy = {", "other = [ ]; caddy = {"),
     "hosts.nix: other: is a list; it must be an attribute set"),
]  # fmt: skip

DEFINITIONS_NIX: list[tuple[str, Edit, str]] = [
    ("VMID of an imported guest", ("vmid = 110;", "vmid = 104;"),
     "vms/definitions.nix: managed.dev.vmid: 104 is also imported.doc1.vmid; give each guest a VMID of its own"),
    ("VMID of the template", ("vmid = 104;", "vmid = 9002;"),
     "vms/definitions.nix: template.vmid: 9002 is also imported.doc1.vmid; give each guest a VMID of its own"),
    ("VMID in no range", ("vmid = 110;", "vmid = 300;"),
     f"vms/definitions.nix: managed.dev.vmid: 300 is in no range for a VM; {PRODUCTION}"),
    ("VM among the containers", ("vmid = 110;", "vmid = 200;"),
     f"vms/definitions.nix: managed.dev.vmid: 200 is in no range for a VM; {PRODUCTION}"),
    ("VM among the templates", ("vmid = 110;", "vmid = 9001;"),
     f"vms/definitions.nix: managed.dev.vmid: 9001 is in no range for a VM; {PRODUCTION}"),
    ("container among the VMs", ("vmid = 110;", 'vmid = 110; type = "lxc";'),
     "vms/definitions.nix: managed.dev.vmid: 110 is in no range for a container; "
     "take one of containers (200 to 299), such as 200"),
    ("template among the VMs", ("vmid = 9002;", "vmid = 190;"),
     "vms/definitions.nix: template.vmid: 190 is in no range for a template; "
     "take one of templates (9000 to 9999), such as 9000"),
    ("VMID that Proxmox has not", ("vmid = 104;", "vmid = 99;"),
     f"vms/definitions.nix: imported.doc1.vmid: 99 is less than 100; {VMID_REMEDY}"),
    ("VMID beyond Proxmox's", ("vmid = 104;", "vmid = 1000000000;"),
     f"vms/definitions.nix: imported.doc1.vmid: 1000000000 is more than 999999999; {VMID_REMEDY}"),
    ("VMID in quotes", ("vmid = 104;", 'vmid = "104";'),
     f"vms/definitions.nix: imported.doc1.vmid: is a string, not an integer; {VMID_REMEDY}"),
    ("no VMID", ("vmid = 104;", ""), f"vms/definitions.nix: imported.doc1.vmid: missing; {VMID_REMEDY}"),
    ("range upside down", ("start = 100; end = 199;", "start = 199; end = 100;"),
     "vms/definitions.nix: vmidRanges.production: ends (100) before it starts (199); "
     "write start and end as two VMIDs, the smaller one first\n"
     "vms/definitions.nix: managed.dev.vmid: 110 is in no range for a VM; add a range to vmidRanges"),
    ("range without an end", ("start = 200; end = 299;", "start = 200;"),
     "vms/definitions.nix: vmidRanges.containers.end: missing; "
     "write start and end as two VMIDs, the smaller one first"),
    ("no such host", ('nixosConfig = "dev"', 'nixosConfig = "dve"'),
     "vms/definitions.nix: managed.dev.nixosConfig: hosts.nix has no host 'dve'; did you mean dev?"),
    ("no such host, none near", ('nixosConfig = "dev"', 'nixosConfig = "zzzz"'),
     "vms/definitions.nix: managed.dev.nixosConfig: hosts.nix has no host 'zzzz'; "
     "add the host there, or correct the name"),
    ("no host at all", ('nixosConfig = "dev";', ""),
     "vms/definitions.nix: managed.dev.nixosConfig: missing; add the id of the guest's host in hosts.nix"),
    ("host of an imported guest", ('nixosConfig = "dev"', 'nixosConfig = "proxmox-vm"'),
     "vms/definitions.nix: managed.dev.nixosConfig: host proxmox-vm already lives in imported.doc1; "
     "one guest is one host"),
    ("imported and managed", ("doc1 = {", "dev = {"),
     "vms/definitions.nix: managed.dev: is declared as imported.dev too; declare it once"),
    ("disk without a unit", ('disk = "64G"', 'disk = "64"'),
     f"vms/definitions.nix: managed.dev.disk: '64' is not a size; {DISK_REMEDY}"),
    ("disk of another unit", ('disk = "64G"', 'disk = "64 GB"'),
     f"vms/definitions.nix: managed.dev.disk: '64 GB' is not a size; {DISK_REMEDY}"),
    ("disk that is a number", ('disk = "64G"', "disk = 64"),
     f"vms/definitions.nix: managed.dev.disk: is an integer, not a string; {DISK_REMEDY}"),
    ("disk of nothing", ('disk = "64G"', 'disk = "0G"'),
     f"vms/definitions.nix: managed.dev.disk: '0G' is not a size; {DISK_REMEDY}"),
    ("no disk", ('disk = "64G";', ""),
     "vms/definitions.nix: managed.dev.disk: missing; add the size of its disk, such as 64G"),
    ("memory in quotes", ("memory = 8192", 'memory = "8G"'),
     "vms/definitions.nix: managed.dev.memory: is a string, not an integer; write its memory in MiB, such as 8192"),
    ("memory in GiB", ("memory = 8192", "memory = 8"),
     "vms/definitions.nix: managed.dev.memory: 8 is less than 16; write its memory in MiB, such as 8192"),
    ("no cores", ("cores = 4", "cores = 0"),
     "vms/definitions.nix: managed.dev.cores: 0 is less than 1; write how many cores it has"),
    ("cores that are none", ("cores = 4", "cores = true"),
     "vms/definitions.nix: managed.dev.cores: is a boolean, not an integer; write how many cores it has"),
    ("a type of guest that there is not", ("vmid = 110;", 'vmid = 110; type = "vm";'),
     "vms/definitions.nix: managed.dev.type: is neither qemu nor lxc; correct it, or leave it out for a VM"),
    ("a flag in quotes", ("readonly = true", 'readonly = "false"'),
     f"vms/definitions.nix: imported.doc1.readonly: is a string, not a boolean; {FLAG_REMEDY}"),
    ("a flag that is null", ("vmid = 110;", "vmid = 110; readonly = null;"),
     f"vms/definitions.nix: managed.dev.readonly: is null, not a boolean; {FLAG_REMEDY}"),
    ("tags that are no list", ("vmid = 110;", 'vmid = 110; tags = "a;b";'),
     "vms/definitions.nix: managed.dev.tags: is not a list of tags; "
     "write a list of words of letters, digits, '-', '_', '+' and '.'"),
    ("no endpoint", ("proxmox = {", "elsewhere = {"),
     "vms/definitions.nix: proxmox: missing, and there are managed guests; add host, node and defaultStorage"),
    ("no node", ('node = "prom";', ""),
     "vms/definitions.nix: proxmox.node: missing; add the name of the node that guests live on"),
    ("endpoint that is a URL", ('host = "127.0.0.1"', 'host = "https://127.0.0.1:8006"'),
     "vms/definitions.nix: proxmox.host: 'https://127.0.0.1:8006' is not a name or address; "
     "write it without https:// and port"),
    ("endpoint with its port", ('host = "127.0.0.1"', 'host = "127.0.0.1:8006"'),
     "vms/definitions.nix: proxmox.host: '127.0.0.1:8006' is not a name or address; "
     'write host = "127.0.0.1"; port = 8006;'),
    ("endpoint with a port that is none", ('host = "127.0.0.1"', 'host = "pve:99999"'),
     "vms/definitions.nix: proxmox.host: 'pve:99999' is not a name or address; "
     'write host = "pve"; and in `port` one from 1 to 65535, usually 8006'),
    ("endpoint with a port without brackets", ('host = "127.0.0.1"', 'host = "2001:db8::2:8006"'),
     "vms/definitions.nix: proxmox.host: '2001:db8::2:8006' may be an address, or one with a port; "
     'write host = "2001:db8::2"; port = 8006; or all of the address: '
     'host = "2001:0db8:0000:0000:0000:0000:0002:8006";'),
    ("endpoint in brackets", ('host = "127.0.0.1"', 'host = "[2001:db8::1]:443"'),
     "vms/definitions.nix: proxmox.host: '[2001:db8::1]:443' is not a name or address; "
     'write host = "2001:db8::1"; port = 443;'),
    ("a guest's name that is none", ('dev = {\n      vmid', '"dev..lan" = {\n      vmid'),
     'vms/definitions.nix: managed."dev..lan": is not a name for a guest; '
     "use letters, digits and '-', with dots between"),
    ("fingerprint that is none", ('node = "prom";', 'node = "prom"; fingerprint = "AB:CD";'),
     "vms/definitions.nix: proxmox.fingerprint: 'AB:CD' is not a fingerprint; "
     "copy the certificate's SHA-256 fingerprint: 64 hex digits, with or without colons"),
    ("port that is none", ('node = "prom";', 'node = "prom"; port = 80006;'),
     "vms/definitions.nix: proxmox.port: 80006 is not a port; write a port, usually 8006"),
    ("CA that is not there", ('node = "prom";', 'node = "prom"; caFile = ./ca.pem;'),
     f"vms/definitions.nix: proxmox.caFile: DIR/vms/ca.pem does not exist; {MISSING}"),
    ("managed that is a list", ("managed = {\n    dev = {", "managed = [ ]; were = {\n    dev = {"),
     "vms/definitions.nix: managed: is a list; it must be an attribute set"),
    ("a fleet's name that is none", ("proxmox = {", 'fleet = "my fleet"; proxmox = {'),
     "vms/definitions.nix: fleet: 'my fleet' is not a name for a fleet; write one word, such as homelab"),
]  # fmt: skip

NIX: list[tuple[str, Edit, str]] = [
    ("syntax error", ('sshAlias = "cad";', 'sshAlias = "cad"'),
     "hosts.nix:30:10: syntax error, unexpected '=', expecting ';'; correct the Nix there"),
    ("undefined variable", ('sshAlias = "cad";', "sshAlias = cad;"),
     "hosts.nix:29:16: undefined variable 'cad'; correct the Nix there"),
    ("attribute twice", ('sshAlias = "cad";', 'sshAlias = "cad"; sshAlias = "dac";'),
     "hosts.nix:29:23: attribute 'sshAlias' already defined at hosts.nix:29:5; correct the Nix there"),
    ("throw", ('sshAlias = "cad";', 'sshAlias = throw "two\\nlines";'),
     "hosts.nix:29:16: two lines; correct the Nix there"),
    ("missing import", ("masterKeys = [", "other = 1; masterKeys = import ./keys.nix ++ ["),
     "hosts.nix:3:27: path 'keys.nix' does not exist; correct the Nix there"),
    ("syntax error in the definitions", ("cores = 4;", "cores = 4,"),
     "vms/definitions.nix:17:16: syntax error, unexpected ',', expecting ';'; correct the Nix there"),
    ("endless", ('sshAlias = "cad";', "sshAlias = let x = x; in x;"),
     "hosts.nix:29:24: infinite recursion encountered; correct the Nix there"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "message"), [pytest.param(*row[1:], id=row[0]) for row in HOSTS_NIX + DEFINITIONS_NIX + NIX]
)
def test_the_author_is_told(make_fleet: MakeFleet, edit: Edit, message: str) -> None:
    directory = make_fleet(edit)
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(directory)
    assert str(caught.value) == message.replace("DIR", str(directory))


def test_all_findings_at_once(make_fleet: MakeFleet) -> None:
    edits = [
        ('hostname = "caddy"', 'hostname = "dev"'),
        ("vmid = 110", "vmid = 104"),
        ('"64G"', '"64"'),
        ('"prom"', "1"),
    ]
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(*edits))
    assert [finding.rpartition("; ")[0] for finding in caught.value.findings] == [
        "hosts.nix: caddy.hostname: 'dev' is also the id of host dev",
        "vms/definitions.nix: proxmox.node: is an integer, not a string",
        "vms/definitions.nix: managed.dev.disk: '64' is not a size",
        "vms/definitions.nix: managed.dev.vmid: 104 is also imported.doc1.vmid",
    ]


def test_two_hosts_of_one_hostname(make_fleet: MakeFleet) -> None:
    edits = [('hostname = "dev"', 'hostname = "same"'), ('hostname = "caddy"', 'hostname = "Same"')]
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(*edits))
    assert str(caught.value) == f"hosts.nix: dev.hostname: 'same' is also the hostname of caddy; {ONE_NAME}"


def test_a_disk_lies_on_some_storage(make_fleet: MakeFleet) -> None:
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(('defaultStorage = "nvmeprom";', ""), ('storage = "nvmeprom";', "")))
    assert str(caught.value) == (
        "vms/definitions.nix: managed.dev.storage: missing, and so is proxmox.defaultStorage; "
        "name the storage for its disk"
    )


@pytest.mark.parametrize("hosts", ["[ ]", "{ }: { }", '"x"'])
def test_hosts_nix_is_an_attribute_set(make_fleet: MakeFleet, hosts: str) -> None:
    with pytest.raises(FleetInvalid, match=r"^hosts\.nix: is a (list|string|function); it must be an attribute set"):
        load_fleet(make_fleet(hosts=hosts, definitions=None))


def test_secrets_are_not_repeated(make_fleet: MakeFleet) -> None:
    private = "-----BEGIN OPENSSH PRIVATE KEY-----"
    edits = [
        (DEV_KEY, f'publicKey = "{private} c2VjcmV0LXRleHQ";'),
        ("sudoPasswordless = true", "initialHashedPassword = [ 5551 ]"),
    ]
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(make_fleet(*edits))
    assert len(caught.value.findings) == 2
    assert not any(secret in str(caught.value) for secret in ("c2VjcmV0", "5551"))
