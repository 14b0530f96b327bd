"""A layout as a small fleet: real secret files for its rules, everybody's keys, and what each of these should open."""

import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nixherd.trust.secrets.files import Format
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.layouts.layout import KEYS, NEW, ExpectedRule, Layout
from tests.nixherd.trust.secrets.repositories import git

OPERATOR = ("alice", "bob")
"""whose keys run it; where a rule takes two key groups, db's is among them too"""
CONTENT = {Format.JSON: '{"a": "b"}\n', Format.INI: "[part]\na = b\n", Format.DOTENV: "a=b\n"}
CLOUD = {
    "kms": {"kms": [{"arn": KEYS["kms"], "created_at": "2026-01-01T00:00:00Z", "enc": "x", "aws_profile": ""}]},
    "vault": {
        "hc_vault": [
            {
                "vault_address": "https://vault.example.org:8200",
                "engine_path": "transit",
                "key_name": "fleet",
                "created_at": "2026-01-01T00:00:00Z",
                "enc": "x",
            }
        ]
    },
}
"""what sops would note of a key that only its cloud encrypts with"""


@dataclass(frozen=True)
class People:
    """Everybody's keys: `directory` has a file of age identities and an SSH key by name; `gnupg` is the operator's."""

    directory: Path
    gnupg: Path
    real: Mapping[str, str]
    """recipients in place of the library's, which no program has a private key for"""

    def identities(self, *names: str) -> Path:
        path = self.directory / f"{'+'.join(names)}.age"
        if not path.exists():
            path.touch(0o600)
            path.write_text("".join(f"{key(name).identity}\n" for name in names))
        return path

    def environment(self, *names: str, has_pgp: bool = False) -> dict[str, str]:
        ssh = self.directory / f"{names[0]}.ssh"
        if not ssh.exists():
            ssh.touch(0o600)
            ssh.write_text(key(names[0]).private_openssh)
        return {
            **environment(),
            "PATH": f"{self.directory / 'bin'}:{environment()['PATH']}",
            "HOME": str(self.directory / "home"),
            "XDG_CONFIG_HOME": str(self.directory / "home"),
            "SOPS_AGE_KEY_FILE": str(self.identities(*names)),
            "SOPS_AGE_SSH_PRIVATE_KEY_FILE": str(ssh),
            "GNUPGHOME": str(self.gnupg),
            "SOPS_DISABLE_VERSION_CHECK": "1",
            "GOGC": "off",
            **({} if has_pgp else {"SOPS_GPG_EXEC": "false"}),
        }


@dataclass(frozen=True)
class Ground:
    """A fleet whose `.sops.yaml` is the layout; `files` are secret files with their rules, by path from its root."""

    root: Path
    layout: Layout
    people: People
    files: Mapping[str, ExpectedRule]

    @property
    def config(self) -> Path:
        return self.root / self.layout.place / ".sops.yaml"

    @property
    def text(self) -> str:
        return self.layout.text_with(self.people.real)

    @property
    def joined(self) -> set[str]:
        """The files of the rules that the new host joins."""
        return {path for path, rule in self.files.items() if self.layout.rules.index(rule) + 1 in self.layout.joins}

    @property
    def is_together(self) -> bool:
        """Whether a rule takes several key groups."""
        return any(len(rule.groups) > 1 for rule in self.layout.rules)

    @property
    def operator(self) -> tuple[str, ...]:
        return (*OPERATOR, "db") if self.is_together else OPERATOR

    def sops(self, *words: str | Path, who: tuple[str, ...] = OPERATOR, **how: Any) -> subprocess.CompletedProcess[str]:
        env = self.people.environment(*who, has_pgp="alice" in who)
        return subprocess.run(
            ["sops", "--config", self.config, *words], cwd=self.root, env=env, capture_output=True, text=True, **how
        )

    def opens(self, *who: str) -> set[str]:
        """What these keys together decrypt, by real sops with nothing else."""

        def one(path: str) -> bool:
            done = self.sops("decrypt", "--output", os.devnull, path, who=who, timeout=60)
            assert done.returncode == 0 or "Failed to get the data key" in done.stderr, done.stderr
            return done.returncode == 0

        with ThreadPoolExecutor(2) as pool:
            return {path for path, is_open in zip(self.files, pool.map(one, self.files), strict=True) if is_open}

    def expected(self, *who: str, new: str | None = None, gone: str | None = None) -> set[str]:
        """What these should decrypt; `new` is who has the new host's place, `gone` has left."""
        held = {label for name in who for label in (name, f"{name}-ssh")} | ({"carol"} if "alice" in who else set())
        found = set()
        for path, rule in self.files.items():
            groups = [{*group.split()} - {gone} for group in rule.groups]
            if new and path in self.joined:
                groups[-1].add(new)
            opened = sum(bool(group & held) for group in groups)
            found |= {path} if opened >= (rule.threshold or len(groups)) else set()
        return found

    def is_as_expected(self, *who: str, **changed: str) -> None:
        assert self.opens(*who) == self.expected(*who, **changed), f"{who}, {changed}"


def made(layout: Layout, people: People, root: Path, *others: Layout) -> Ground:
    """The fleet, a repository with one commit; `others` are more `.sops.yaml` in it, without files of their own."""
    pairs = {os.path.normpath(f"{layout.place or '.'}/{path}"): number for path, number in layout.paths.items()}
    files = {path: layout.rules[number - 1] for path, number in pairs.items() if number}
    ground = Ground(root, layout, people, files)
    for each in (layout, *others):
        (root / each.place).mkdir(parents=True, exist_ok=True)
        (root / each.place / ".sops.yaml").write_bytes(each.text_with(people.real).encode())
    hosts = {host: key(host).public for host in layout.hosts.values()} | {NEW: "placeholder"}
    words = 'hostname = "{0}"; user = "admin"; publicKey = "{1}"; configurationFile = ./host.nix;'
    entries = (f"  {host} = {{ {words.format(host, public)} }};\n" for host, public in hosts.items())
    (root / "hosts.nix").write_text(f"{{\n{''.join(entries)}}}\n")
    (root / "host.nix").write_text("{ }\n")
    for path in files:
        encrypt(ground, path)
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "alice")
    git(root, "config", "user.email", "alice@invalid")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "the fleet")
    return ground


def encrypt(ground: Ground, path: str) -> None:
    """Have sops encrypt a file for its rule; keys of clouds are noted in it, and open nothing."""
    place, labels = ground.root / path, " ".join(ground.files[path].groups).split()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(CONTENT.get(Format.of(path), "a: b\n"))
    clouds = [CLOUD[label] for label in labels if label in CLOUD]
    if not clouds:
        done = ground.sops("encrypt", "--in-place", path)
        assert done.returncode == 0, done.stderr
        return
    ages = [KEYS[label] for label in labels if label not in CLOUD]
    words = ["sops", "--config", os.devnull, "encrypt", "--in-place", "--age", ",".join(ages or [KEYS["alice"]]), path]
    env = ground.people.environment("alice")
    subprocess.run(words, cwd=ground.root, env=env, check=True, capture_output=True)
    document = yaml.safe_load(place.read_text())
    for cloud in clouds:
        document["sops"] |= cloud
    if not ages:
        del document["sops"]["age"]
    place.write_text(yaml.safe_dump(document))
