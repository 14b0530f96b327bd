"""A small fleet in a git repository of its own, its secrets encrypted by the real sops."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.files import is_temporary
from nixherd.fleet import load
from nixherd.nix.declared import Declared, DeclaredSecret, Identity
from nixherd.trust.joining import Admission
from nixherd.trust.secrets.files import Format, read_file
from tests.evaluated import remembered
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.keys import key

SECRETS = {
    "common.yaml": "# for all\nwifi:\n    password: hunter2\n    names: [a, b]\n",
    "common.env": "# for all\nTOKEN=abc\nOTHER=d e f\n",
    "dev.yaml": "api_token: xyzzy\n",
    "sub/thing.json": '{"a": 1, "b": [true, null, "x"]}\n',
    "settings.ini": "[part]\nname = value\n",
    "ssh_key_admin": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
}
DECLARED = ("secrets/common.env", "secrets/common.yaml", "secrets/dev.yaml")  # by dev's configuration
COMMON = ("common.env", "common.yaml", "settings.ini", "sub/thing.json")  # those that every host opens


def admission(*files: str, problem: str | None = None, **how: Any) -> Admission:
    """How dev comes to its secrets, which its configuration declares."""
    secrets = tuple(
        DeclaredSecret(f"s{at}", f"/run/secrets/s{at}", file, str(Format.of(file)), "api_token")
        for at, file in enumerate(files or DECLARED)
    )
    identity = Identity(None, age_ssh_keys=("/etc/ssh/ssh_host_ed25519_key",))
    return Admission(Declared("dev", secrets, identities=(identity,), problem=problem), **how)


def config() -> str:
    """Rule 1 is every host's, rule 2 is dev's own, rule 3 the admin's alone."""
    return f"""# Who may decrypt what.
keys:
  - &admin {key("admin").recipient} # the boss
  - &doc1 {key("doc1").recipient}
  - &igp {key("igp").recipient}
creation_rules:
  # everybody's
  - path_regex: ^(common|settings|sub/)
    key_groups:
      - age:
          - *admin
          - *doc1
          - *igp
  - path_regex: ^dev\\.yaml$
    age: {key("admin").recipient}
  - path_regex: ^ssh_key_
    age: {key("admin").recipient}
"""


def hosts(dev: str = "placeholder") -> str:
    entries = "".join(
        f"""
  # {name}, a machine
  {name} = {{
    hostname = "{name}";
    user = "admin";
    publicKey = "{value}";
    configurationFile = ./hosts/{name}.nix;
  }};
"""
        for name, value in (("doc1", key("doc1").public), ("igp", key("igp").public), ("dev", dev))
    )
    return f"# The fleet.\n{{{entries}}}\n"


DEFINITIONS = """{
  proxmox = { host = "192.0.2.1"; node = "prom"; defaultStorage = "local"; };
  managed.dev = { vmid = 110; cores = 1; memory = 512; disk = "8G"; nixosConfig = "dev"; };
}
"""


# As little of a flake as can be evaluated: each host's system is its configurationFile; dev declares its secrets.
FLAKE = """{
  outputs = _: {
    nixosConfigurations = builtins.mapAttrs (id: host: {
      config = {
        networking.hostName = host.hostname;
        sops.age.sshKeyPaths = [ /etc/ssh/ssh_host_ed25519_key ];
        sops.secrets = if id != "dev" then { } else builtins.mapAttrs (name: file: {
          inherit name;
          path = "/run/secrets/${name}";
          sopsFile = ./secrets + "/${file}";
          format = if name == "env" then "dotenv" else "yaml";
          key = name;
          mode = "0400";
        }) { env = "common.env"; wifi = "common.yaml"; api_token = "dev.yaml"; };
        system.build.toplevel = derivation {
          name = "${id}-${toString (import host.configurationFile)}";
          system = "x86_64-linux";
          builder = "/bin/sh";
        };
      };
    }) (import ./hosts.nix);
  };
}
"""


def git(repository: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=repository, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sops(directory: Path, *words: str, identity: str = "admin", check: bool = True) -> subprocess.CompletedProcess[str]:
    """sops as somebody, their identity in a file that only we read."""
    with tempfile.NamedTemporaryFile("w", suffix=".age") as file:
        file.write(key(identity).identity + "\n")
        file.flush()
        env = {**environment(), "SOPS_AGE_KEY_FILE": file.name}
        done = subprocess.run(["sops", *words], cwd=directory, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def _enrolled() -> dict[str, str]:
    """The files in which dev is a recipient of the rule for all and of its own."""
    secrets = config().replace("creation_rules:", f"  - &dev {key('dev').recipient}\ncreation_rules:")
    secrets = secrets.replace("          - *igp\n", "          - *igp\n          - *dev\n")
    own = f"  # dev's own\n  - path_regex: ^dev\\.yaml$\n    age: {key('admin').recipient}"
    secrets = secrets.replace(own.partition("\n")[2], f"{own},{key('dev').recipient}")
    return {"hosts.nix": hosts(key("dev").public), "secrets/.sops.yaml": secrets}


@functools.cache
def _original(*, enrolled: bool = False) -> Path:
    place = Path(tempfile.mkdtemp(prefix="fleet-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    files = {
        "hosts.nix": hosts(),
        "vms/definitions.nix": DEFINITIONS,
        "secrets/.sops.yaml": config(),
        "flake.nix": FLAKE,
    }
    for name, text in {**files, **(_enrolled() if enrolled else {})}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    (place / "hosts").mkdir()
    for name in ("doc1", "igp", "dev"):
        (place / "hosts" / f"{name}.nix").write_text('"1"\n' if enrolled else "{ }\n")
    for name, text in SECRETS.items():
        (place / "secrets" / name).parent.mkdir(exist_ok=True)
        (place / "secrets" / name).write_text(text)
        sops(place / "secrets", "encrypt", "--in-place", name)
    git(place, "init", "-q", "-b", "main")
    git(place, "config", "user.name", "admin")
    git(place, "config", "user.email", "admin@invalid")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "the fleet")
    return place


def repository(place: Path, *, enrolled: bool = False) -> Path:
    """A copy of the fleet, a repository with one commit. `enrolled`: dev is in service, and every host evaluates."""
    shutil.copytree(_original(enrolled=enrolled), place)
    git(place, "status")  # its index knows the copies' times
    return place


def identity_of(place: Path, name: str = "admin") -> Path:
    """A file with somebody's age identity."""
    path = place / f"{name}.age"
    path.touch(0o600)
    path.write_text(key(name).identity + "\n")
    return path


def nobodys(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """This process has Nix, git and sops, and no configuration, state or identity of whoever runs the tests.

    Of fleets in the place, what Nix says of the same content is asked once.
    """
    monkeypatch.setattr(load, "run", remembered(place))
    for name in ("PATH", "NIX_CONF_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, environment()[name])
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))


def administered(
    monkeypatch: pytest.MonkeyPatch, place: Path, identity: str = "admin", *, enrolled: bool = False
) -> Path:
    """The fleet in a directory of `place`, and this process is somebody's, who has their identity and nothing else."""
    nobodys(monkeypatch, place)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(identity_of(place, identity)))
    return repository(place / "fleet", enrolled=enrolled)


def recipients(fleet: Path) -> dict[str, set[str]]:
    """By file, who can decrypt it, by their names."""
    names = {key(name).age: name for name in ("admin", "doc1", "igp", "dev", "other")}
    found = {}
    for name in SECRETS:
        about = read_file(name, (fleet / "secrets" / name).read_bytes())
        found[name] = {names[each] for each in about.recipients} if about else set()
    return found


BEFORE = {
    **{name: {"admin", "doc1", "igp"} for name in ("common.yaml", "common.env", "sub/thing.json", "settings.ini")},
    **{name: {"admin"} for name in ("dev.yaml", "ssh_key_admin")},
}
WITH_DEV = {**{name: who | {"dev"} for name, who in BEFORE.items()}, "ssh_key_admin": {"admin"}}


def contents(fleet: Path, *, pipes: bool = True) -> dict[str, bytes]:
    """Every file of the fleet but git's and ours."""
    found = {}
    for parent, directories, files in os.walk(fleet):
        directories[:] = [name for name in directories if name != ".git"]
        for name in files:
            if is_temporary(name):
                continue
            path = Path(parent) / name
            if not path.exists() or not (pipes or path.is_file()):
                continue
            found[path.relative_to(fleet).as_posix()] = path.read_bytes()
    return found
