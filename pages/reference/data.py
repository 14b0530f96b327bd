"""Data keys and environment variables: what each is for stands here, which there are is the code's."""

from collections.abc import Mapping

from nixherd.fleet.groups import HOST_DATA, NODE_DATA
from nixherd.fleet.schema import FIELDS, OPERATORS, Field, Place
from pages.reference.prose import NOTE, code, escaped, joined, table

OF_HOSTS: Mapping[str, str] = {
    "age_identity": "the age identity that decrypts secret files",
    "allow_dirty": "deploy what is not committed; the report says so",
    "allow_reboot": "`vms.py` reboots guests with pending options",
    "allowed_signers": "the file of keys that may sign commits, as ssh-keygen reads it",
    "boot_deadline": "for a machine to boot",
    "commit": "false: enrolment and what it calls change files and do not commit them",
    "commit_message": "the subject of that commit",
    "disk_encryption_keys": '`{"/tmp/secret.key": "local/file"}`: key files for disko, in the installer\'s memory',
    "docs_file": "the overview of the machines; else `docs/machines.md`",
    "docs_template": "the Jinja template of that overview",
    "edit_generated": "change a Nix file although it says that it is generated",
    "extra_files": 'a directory, or `{"/etc/x": "local/file"}`: files for the new root',
    "extra_owners": '`{"/home/me": "1000:100"}`: whose those are',
    "flake": "any flake reference to deploy from, without a checkout",
    "force": "`reboot.py` also reboots machines that need none",
    "give_up": "change recipients although you could not decrypt some file afterwards",
    "hardware_configuration": "true, or a path in the flake: write the output of nixos-generate-config there first",
    "hardware_report": "the same with the report of nixos-facter",
    "host_key": "the present host key of a machine without a hypervisor",
    "ask_hypervisor": "false: no request is sent to the hypervisor, also where a machine is not found without it",
    "install_user": "who logs in there for the installation",
    "journal": "the directory in which a rollout notes its events",
    "kexec": "the installer, a file or a URL",
    "kexec_sha256": "the hash of that URL's file",
    "local": "the machine that this runs on, without SSH",
    "no_check": "switch although the checks of switch-to-configuration advise against it",
    "phases": "only these phases of an installation",
    "protect": "false: post-provisioning does not set `readonly`",
    "proxmox_token_file": "the file with the API token",
    "rotate_removed": "files from which somebody was removed get a new data key",
    "secrets": "none: enrolment changes keys and no secret file",
    "secrets_create": "make missing rules and secret files",
    "secrets_directory": "only the `.sops.yaml` in this directory of the repository",
    "secrets_replace": "the recipient, by name or key, that a host's new key replaces",
    "secrets_rules": "further rules that a new host joins",
    "sign_with": "the key with which closures are signed before they are copied",
    "signed_from": "the last commit before signing began",
    "snapshot": "take a snapshot before a guest is changed, and keep or remove it afterwards",
    "sudo_password": "sudo's password is read from stdin",
    "task_deadline": "for a task or lock of the hypervisor",
    "without": "checks that the gate leaves out",
}
OF_NODES: Mapping[str, str] = {
    "blacklist": "kernel modules that the node must not load",
    "devices": "PCI devices to pass through, by `vendor:device`",
    "host_key": "the node's SSH host key",
    "hostpci": "by guest, the passed-through devices that it is to have",
    "kernel_words": "further kernel parameters, for example `iommu=pt`",
    "proxmox_token_file": "the file with the API token",
    "vendor_reset": "the directory on the node with vendor-reset's source",
}
VARIABLES: Mapping[str, str] = {
    "EDITOR": "what `nixherd secrets edit` opens, where SOPS_EDITOR is not set",
    "FLEET": "the fleet's directory, where `--fleet` is not given; else the nearest one upwards",
    "GITHUB_ACTIONS": "`true`: `nixherd check` annotates lines of a pull request",
    "GIT_INDEX_FILE": "the index that a git hook is called for: `nixherd check` judges what it has",
    "NIXHERD_CONFIG": "the operator's configuration, with [hooks](../hooks.md); else `~/.config/nixherd/config.toml`",
    "NIXHERD_SAFE_DIRECTORY": "fleets of other owners that are used all the same: paths between colons, or `*`",
    "NO_COLOR": "no colours, also with `TERM=dumb`",
    "PATH": "nix, ssh, git, sops, and what the gate runs are found there",
    "PROXMOX_TOKEN_FILE": "the API token's file, where `--token-file` is not given",
    "SHELL": "what runs the `ProxyCommand` of your own ssh_config",
    "SOPS_AGE_KEY_FILE": "your age identities; else `~/.config/sops/age/keys.txt`",
    "SOPS_AGE_SSH_PRIVATE_KEY_FILE": "your SSH key, where it decrypts",
    "SOPS_EDITOR": "what `nixherd secrets edit` opens",
    "SOPS_GPG_EXEC": "the program for PGP keys, instead of gpg",
    "SUDO_UID": "who called sudo: that user's fleet is taken, too",
    "TERM": "`dumb`: no colours",
    "XDG_CACHE_HOME": "what TAB completes is kept there; else in `~/.cache`",
    "XDG_CONFIG_HOME": "where `nixherd/` and `sops/` are looked for; else in `~/.config`",
    "XDG_STATE_HOME": "what is kept between runs is in `nixherd/` there; else in `~/.local/state`",
}
_HEAD = ("key", "value", "")


def _field_row(field: Field) -> tuple[str, str, str]:
    unit = f", {field.unit}" if field.unit else ""
    return code(field.name), escaped(f"{field.type.words}{unit}"), escaped(field.purpose)


def page() -> str:
    """Return the page of data keys: those of deployments are fields of hosts.nix as well."""
    fields = {field.name: field for field in FIELDS[Place.HOST] if field.deploys}
    others = [name for name in HOST_DATA if name not in fields]
    return joined(
        [
            "# Data keys", NOTE,
            "What `--data NAME=VALUE` and group data may set ([where, and which goes first](../operations.md#data)). "
            "An unknown name ends the run before anything is connected.",
            "## Of a deployment",
            "They are attributes of a host in hosts.nix as well ([all of them](../fields.md)).",
            table(_HEAD, [_field_row(fields[name]) for name in sorted(fields)]),
            "## Of the operator",
            f"These are never obeyed in the tree: {', '.join(code(name) for name in sorted(OPERATORS))}.",
            table(_HEAD, [(code(name), escaped(HOST_DATA[name][1]), OF_HOSTS[name]) for name in sorted(others)]),
            "## Of a node",
            "For `deploys/proxmox_host.py` ([how](../proxmox-host.md)).",
            table(_HEAD, [(code(name), escaped(NODE_DATA[name][1]), OF_NODES[name]) for name in sorted(NODE_DATA)]),
        ]
    )  # fmt: skip


def environment_page() -> str:
    """Return the page of environment variables."""
    return joined(
        [
            "# Environment variables", NOTE,
            "Options come before them. What sops is given of the environment is on [its page](../secrets.md). No "
            "variable holds a secret, and the connection to the hypervisor takes none: no proxy, no authority.",
            table(("variable", ""), [(code(name), VARIABLES[name]) for name in sorted(VARIABLES)]),
        ]
    )  # fmt: skip
