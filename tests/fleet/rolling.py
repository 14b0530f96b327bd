"""A forge, a builder and its cache on this computer, for the tests of the rolling update."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nixherd.trust import publish as pointers
from tests.nix_cli import environment

PROGRAM = Path(__file__).parent.parent.parent / "fleet/modules/nixos/homelab/ci/rolling-flake-update.sh"
FLAKE = """\
{
  inputs.upstream = {
    url = "path:UPSTREAM";
    flake = false;
  };
  outputs = {upstream, ...}: let
    built = name: script: derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
      PATH = "/usr/bin:/bin";
      args = ["-euc" script];
    };
    machine = id: text: {
      config.system.build.toplevel = built "system-${id}" ''
        mkdir -p $out/etc; . ${upstream}/builder; echo ${text} >$out/etc/hostname; cat ${upstream}/version >$out/version
      '';
    };
  in {
    nixosConfigurations = builtins.mapAttrs machine (import ./hosts.nix);
    homeConfigurations.alice.activationPackage = built "home-alice" "cat ${upstream}/version >$out";
  };
}
"""
HOSTS = '{ web = "web01"; "db.one" = "db01"; }\n'


@dataclass
class Forge:
    """An origin, its clone as repoDir has it, another person's clone, and a machine that updates all by itself."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        who = {f"GIT_{role}_{what}": "person" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**environment(), **who}

    def sh(self, text: str) -> str:
        done = subprocess.run(["sh", "-euc", text], cwd=self.root, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", self.root / "person", *words], env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, name: str, text: str) -> str:
        """Somebody pushes this file; gives the commit."""
        self.git("pull", "--quiet", "--rebase", "origin", "main")
        (self.root / "person" / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{name} by a person")
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.tip

    def upstream(self, version: str, builder: str = "") -> None:
        (self.root / "upstream/version").write_text(f"{version}\n")
        (self.root / "upstream/builder").write_text(f"{builder}\n")

    @property
    def tip(self) -> str:
        return self.sh("git --git-dir=origin.git rev-parse main")

    @property
    def state(self) -> Path:
        return self.root / "state"

    def before(self, program: str, words: str, script: str) -> None:
        """The first time that this program is run with these words in its command line, this happens before."""
        (self.root / "bin").mkdir(exist_ok=True)
        (self.root / "first").touch()
        wrapper = self.root / "bin" / program
        wrapper.write_text(
            f'#!/bin/sh\ncase "$*" in *"{words}"*)\n'
            f"if rm {self.root}/first 2>/dev/null; then {script}\nfi ;; esac\n"
            f'PATH=${{PATH#{self.root}/bin:}} exec {program} "$@"\n'
        )
        wrapper.chmod(0o755)

    def run(self, branch: str = "-", **more: str) -> tuple[int, str]:
        """How one run ended, and what it said."""
        done = subprocess.run(
            ["/bin/sh", PROGRAM, pwd.getpwuid(os.getuid()).pw_name, self.state, branch],
            env={
                **environment(),
                "PATH": f"{self.root}/bin:{environment()['PATH']}",
                "CREDENTIALS_DIRECTORY": str(self.root / "credentials"),
                "RUNTIME_DIRECTORY": str(self.root / "runtime"),
                **more,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode < 0 or not (self.root / "runtime/key").exists(), "the key is left behind"
        return done.returncode, done.stdout + done.stderr

    def pointer(self, host: str) -> pointers.Pointer | None:
        public = self.sh("nix key convert-secret-to-public <credentials/key")
        return pointers.read(self.state / "cache/systems" / host, public, host, self.root)

    def told(self) -> dict[str, tuple[str, str | None]]:
        """To each machine: the version of upstream in its system, as the cache has it, and the revision."""
        found = {}
        for host in ("web01", "db01"):
            pointer = self.pointer(host)
            assert pointer, f"{host}: its pointer is not signed"
            self.sh(f"nix path-info --store file://{self.state}/cache {pointer.system}")
            found[host] = ((Path(pointer.system) / "version").read_text().strip(), pointer.revision)
        return found
