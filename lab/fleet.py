"""Makes the lab's copy of the reference fleet: a separate git repository whose flake.lock points at the stand-ins.

The copy is the fleet before its first provisioning: `dev` is not protected yet, has a placeholder for its key and is
not a recipient of secrets; the definitions name the lab's node, and the operator's key may log in and decrypt. The
secret files are new, with the lab's own content. Nothing else differs.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from lab.errors import LabError
from lab.options import write as write_options

LAB = Path(__file__).resolve().parent
REFERENCE = LAB.parent / "fleet"

# The VMID of the reference fleet's managed VM; more VMs get the next numbers.
FIRST_VMID = 110
PLACEHOLDER = "placeholder: set when the machine has been installed"

# Older than any file of a checkout, in seconds since 1970.
_LOCKED_AT = 1_600_000_000

_WORD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")


def prepare_fleet(
    target: Path,
    *,
    nix: Path | str,
    machines: int,
    endpoint_host: str,
    fingerprint: str,
    operator_key: str,
    recipient: str,
    env: Mapping[str, str],
) -> None:
    """Recreate the copy at `target`, and next to it the stand-ins that its lock names.

    `machines` is the number of managed VMs: dev, dev2, … with VMIDs from 110. `fingerprint` is the SHA-256 of the API's
    certificate, `operator_key` a public SSH key line, `recipient` the operator's age key; `env`'s PATH has sops. Raises
    LabError.
    """
    inputs = target.with_name(f"{target.name}-inputs")
    for directory in (target, inputs):
        shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(REFERENCE, target, ignore=shutil.ignore_patterns(".git", "flake.lock", "result*"))
    _edit_hosts(target / "hosts.nix", machines, operator_key)
    _edit_definitions(target / "vms" / "definitions.nix", machines, endpoint_host, fingerprint)
    for number in range(2, machines + 1):
        shutil.copytree(target / "hosts" / "dev", target / "hosts" / f"dev{number}")
        configuration = Edit(target / "hosts" / f"dev{number}" / "configuration.nix")
        configuration.replace(r"secrets/dev\.yaml", f"secrets/dev{number}.yaml")
        configuration.save()
    _make_secrets(target / "secrets", machines, recipient, env)
    overrides = _stand_ins(inputs, target)
    _commit_locked(target, nix, overrides, env)


class Edit:
    """Changes a file of the copy by replacing known texts, each exactly once. Raises LabError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text()

    def replace(self, pattern: str, new: str) -> None:
        """Replace the only match of `pattern` (a multi-line regular expression) with the text `new`."""
        matches = list(re.finditer(pattern, self.text, re.MULTILINE | re.DOTALL))
        if len(matches) != 1:
            raise LabError(
                f"{self.path.name} of the reference fleet has {len(matches)} places that match {pattern!r}, not one; "
                "update lab/fleet.py"
            )
        start, end = matches[0].span()
        self.text = self.text[:start] + new + self.text[end:]

    def section(self, opening: str) -> str:
        """Return the text of the attribute that starts with the line `opening`, up to its closing line."""
        sections = re.findall(rf"^( *){re.escape(opening)}\n(.*?\n)\1}};\n", self.text, re.MULTILINE | re.DOTALL)
        if len(sections) != 1:
            raise LabError(f"{self.path.name} of the reference fleet has no attribute that starts with {opening!r}")
        indent, body = sections[0]
        return f"{indent}{opening}\n{body}{indent}}};\n"

    def save(self) -> None:
        self.path.write_text(self.text)


def _edit_hosts(path: Path, machines: int, operator_key: str) -> None:
    edit = Edit(path)
    edit.replace(r"  masterKeys = \[\n.*?\n  \];", f'  masterKeys = [\n    "{operator_key}"\n  ];')
    original = edit.section("dev = {")
    dev = Edit(path)
    dev.text = original
    dev.replace(r'publicKey = "[^"]*";', f'publicKey = "{PLACEHOLDER}";')
    entries = [dev.text]
    for number in range(2, machines + 1):
        other = Edit(path)
        other.text = dev.text
        other.replace(r"^  dev = \{", f"  dev{number} = {{")
        other.replace(r'hostname = "dev";', f'hostname = "dev{number}";')
        other.replace(r'sshAlias = "dev";', f'sshAlias = "dev{number}";')
        other.text = other.text.replace("./hosts/dev/", f"./hosts/dev{number}/")
        entries.append(other.text)
    edit.replace(re.escape(original), "\n".join(entries))
    edit.save()


def _edit_definitions(path: Path, machines: int, endpoint_host: str, fingerprint: str) -> None:
    edit = Edit(path)
    edit.replace(
        r'^    host = "192\.168\.1\.12";\n', f'    host = "{endpoint_host}";\n    fingerprint = "{fingerprint}";\n'
    )
    original = edit.section("dev = {")
    dev = Edit(path)
    dev.text = original
    dev.replace(r"(?:^ *#[^\n]*\n)*^ *readonly = true;\n", "")
    entries = [dev.text]
    for number in range(2, machines + 1):
        other = Edit(path)
        other.text = dev.text
        other.replace(r"^    dev = \{", f"    dev{number} = {{")
        other.replace(rf"vmid = {FIRST_VMID};", f"vmid = {FIRST_VMID + number - 1};")
        other.replace(r'nixosConfig = "dev";', f'nixosConfig = "dev{number}";')
        entries.append(other.text)
    edit.replace(re.escape(original), "\n".join(entries))
    edit.save()


# The env files of doc1's container stacks, by stack and name, with one password each.
STACKS = "".join(
    f"{stack}:\n" + "".join(f"  {name}: {variable}={{0}}\n" for name, variable in files.items())
    for stack, files in {
        "forgejo": {"forgejo": "FORGEJO__database__PASSWD", "database": "POSTGRES_PASSWORD"},
        "grafana": {"grafana": "GF_SECURITY_ADMIN_PASSWORD"},
        "immich": {"immich": "DB_PASSWORD", "database": "POSTGRES_PASSWORD"},
        "mealie": {"database": "POSTGRES_PASSWORD"},
        "paperless": {"paperless": "PAPERLESS_DBPASS", "database": "POSTGRES_PASSWORD"},
        "vaultwarden": {"vaultwarden": "ADMIN_TOKEN"},
    }.items()
)
SECRETS = {
    "common.yaml": ("yaml", "wifi:\n    password: {}\n"),
    "common.env": ("dotenv", "HEALTHCHECK_URL=https://status.invalid/{}\n"),
    "ssh_key_abl030": ("binary", "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n"),
    "dev.yaml": ("yaml", "api_token: {}\n"),
    "proxmox-vm.yaml": ("yaml", "nix_serve_key: {0}\ngithub_runner_token: {0}\nforge_token: {0}\n"),
    "stacks.yaml": ("yaml", STACKS),
    "acme-cloudflare.env": ("dotenv", "CLOUDFLARE_DNS_API_TOKEN={}\n"),
}


def _make_secrets(directory: Path, machines: int, recipient: str, env: Mapping[str, str]) -> None:
    """Create the reference's secrets for the lab's operator only; no machine exists yet."""
    edit = Edit(directory / ".sops.yaml")
    edit.replace(r"(?<=&abl030 )age1\w+", recipient)
    edit.text = re.sub(r"^ *- [&*]dev\b.*\n", "", edit.text, flags=re.MULTILINE)
    rule = edit.text[edit.text.index("  - path_regex: ^dev") :]
    for number in range(2, machines + 1):
        edit.text += rule.replace("^dev", f"^dev{number}")
    edit.save()
    files = SECRETS | {f"dev{number}.yaml": SECRETS["dev.yaml"] for number in range(2, machines + 1)}
    for name, (kind, text) in files.items():
        output = "json" if kind == "binary" else kind
        done = subprocess.run(
            [
                "sops",
                "encrypt",
                "--filename-override",
                name,
                "--input-type",
                kind,
                "--output-type",
                output,
                "/dev/stdin",
            ],
            cwd=directory,
            env=env,
            input=text.format(secrets.token_hex(16)),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise LabError(f"the fleet's copy: sops cannot make {name}: {done.stderr.strip().splitlines()[-1]}")
        (directory / name).write_text(done.stdout)


def _stand_ins(inputs: Path, fleet: Path) -> dict[str, Path]:
    """Return the path of each input's stand-in. nixpkgs' copy provides every word of the fleet's files as a package."""
    nixpkgs = inputs / "nixpkgs"
    shutil.copytree(LAB / "nixpkgs", nixpkgs)
    words = {word for file in sorted(fleet.rglob("*.nix")) for word in _WORD.findall(file.read_text())}
    names = nixpkgs / "pkgs" / "names.json"
    names.write_text(json.dumps(sorted(words)))
    # The lock file records the newest file's time: the same fleet gets the same lock.
    for path in (names, names.parent):
        os.utime(path, (_LOCKED_AT, _LOCKED_AT))
    write_options(nixpkgs / "options", _LOCKED_AT)
    os.utime(nixpkgs, (_LOCKED_AT, _LOCKED_AT))
    stand_ins = {path.parent.name: path.parent for path in sorted((LAB / "inputs").glob("*/flake.nix"))}
    return {"nixpkgs": nixpkgs, **stand_ins}


def _commit_locked(fleet: Path, nix: Path | str, overrides: Mapping[str, Path], env: Mapping[str, str]) -> None:
    """Commit `fleet` as a git repository with a lock file that names the stand-ins."""
    # Ignore the git configuration, hooks and templates of the user who runs the lab.
    identity = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY.items()}
    isolated = {**env, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def run(*argv: str) -> None:
        done = subprocess.run(argv, cwd=fleet, env=isolated, capture_output=True, text=True)
        if done.returncode:
            messages = (done.stderr or done.stdout).strip().splitlines()
            raise LabError(f"the fleet's copy: {' '.join(argv[:3])} failed: {' / '.join(messages[-3:])}")

    run("git", "init", "--quiet", "--initial-branch=main", "--template=")
    run("git", "config", "user.name", _IDENTITY["NAME"])
    run("git", "config", "user.email", _IDENTITY["EMAIL"])
    # A flake contains only what git tracks.
    run("git", "add", "--all")
    flags = [f"--override-input={name}" for name in overrides]
    pairs = [
        part
        for flag, path in zip(flags, overrides.values(), strict=True)
        for part in (*flag.split("="), f"path:{quote(str(path))}")
    ]
    run(str(nix), "--extra-experimental-features", "nix-command flakes", "flake", "lock", *pairs)
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--no-verify", "--message", "The fleet before its first machine is made")


_IDENTITY = {"NAME": "lab", "EMAIL": "lab@invalid"}
