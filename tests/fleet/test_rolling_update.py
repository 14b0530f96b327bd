"""The program of the rolling update, with real git, real Nix and a fleet of raw derivations that follows one input."""

import base64
import os
import pwd
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from nixherd.trust import publish as pointers
from tests.nix_cli import environment

pytestmark = pytest.mark.nix

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


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    forge = Forge(tmp_path)
    for name in ("upstream", "credentials", "runtime", "state"):
        (tmp_path / name).mkdir()
    forge.upstream("1")
    forge.sh(
        "git init -q --bare -b main origin.git;"
        "for clone in person repo; do git clone -q origin.git $clone 2>/dev/null; done;"
        "cp repo/.git/config credentials/clone; (umask 077; nix key generate-secret --key-name t-1 >credentials/key)"
    )
    (tmp_path / "person/flake.nix").write_text(FLAKE.replace("UPSTREAM", str(tmp_path / "upstream")))
    (tmp_path / "person/hosts.nix").write_text(HOSTS)
    forge.git("checkout", "--quiet", "-B", "main")
    forge.git("add", "--all")
    forge.git("commit", "--quiet", "--message", "first")
    forge.git("push", "--quiet", "origin", "main")
    return forge


def test_an_update_is_built_put_into_the_cache_pushed_and_published_once(forge: Forge) -> None:
    first = forge.tip
    status, output = forge.run()
    assert status == 0, output
    assert forge.sh(f"git --git-dir=origin.git diff --name-only {first} main") == "flake.lock"
    assert forge.told() == {"web01": ("1", forge.tip), "db01": ("1", forge.tip)}
    for system in (forge.state / "cache").glob("*.narinfo"):
        assert "\nSig: t-1:" in system.read_text()
    assert len(list((forge.state / "work/builds" / forge.tip).iterdir())) == 3  # two machines and a home

    tip, files = forge.tip, sorted((forge.state / "cache").rglob("*"))
    assert forge.run() == (0, f"nothing new: {tip}\n")
    assert (forge.tip, sorted((forge.state / "cache").rglob("*"))) == (tip, files)

    old, by_hand = forge.pointer("web01"), forge.pointer("db01")
    forge.sh(f"cp {forge.state}/cache/systems/db01 {forge.state}/cache/systems/other")
    forge.sh(f"find {forge.state}/cache -type f -exec touch -d '2 days ago' {{}} +")
    forge.upstream("2")
    assert forge.run("main")[0] == 0
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}
    assert forge.tip != tip
    message = forge.sh("git --git-dir=origin.git log -1 --format=%B main")
    assert message.startswith("flake.lock: update\n\n• Updated input 'upstream'")
    new = forge.pointer("web01")
    assert old
    assert by_hand
    assert new
    assert old.serial < new.serial
    # what nothing needs any more is gone, what is needed is there
    nothing = f"! nix path-info --store file://{forge.state}/cache {old.system} 2>/dev/null"
    forge.sh(f"nix path-info --store file://{forge.state}/cache {by_hand.system}")
    forge.sh(f"{nothing}; test $(ls {forge.state}/cache/nar | wc -l) = $(ls {forge.state}/cache/*.narinfo | wc -l)")


def test_a_revision_that_is_bad_stops_at_the_gate(forge: Forge) -> None:
    forge.run()
    told = forge.told()
    bad = forge.commit("hosts.nix", '{ web = "web01"; "db.one" = throw "no such thing"; bad = "x y/z"; }')
    forge.upstream("2")
    status, output = forge.run()
    assert status == 1
    assert 'nixosConfigurations."db.one".config.system.build.toplevel cannot be built' in output
    assert "no such thing" in output
    assert 'nixosConfigurations."web".config' not in output
    assert "does not pass the gate either" in output
    assert (forge.tip, forge.told()) == (bad, told)

    forge.commit("hosts.nix", '{ web = "web01"; other = "web01"; }')
    status, output = forge.run()
    assert (status, "more than one machine has the hostname web01" in output) == (1, True)
    assert forge.told() == told

    forge.commit("hosts.nix", "{ }")
    status, output = forge.run()
    assert (status, "has no machines" in output) == (1, True)
    forge.commit("hosts.nix", HOSTS)
    assert forge.run()[0] == 0
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}


def test_what_people_have_committed_does_not_wait_for_an_input_that_breaks(forge: Forge) -> None:
    forge.run()
    tip = forge.commit("readme", "words")
    forge.upstream("2", "echo upstream is broken >&2; exit 1")
    status, output = forge.run()
    assert (status, "upstream is broken" in output, f"continuing with {tip} without it" in output) == (1, True, True)
    assert forge.tip == tip
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}
    status, output = forge.run()  # and then there is only the input
    assert (status, "machines keep what they have" in output) == (1, True)
    (forge.root / "upstream").rename(forge.root / "away")
    tip = forge.commit("readme", "more words")
    status, output = forge.run()
    assert (status, "the inputs cannot be updated" in output) == (1, True)
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}
    assert forge.run()[0] == 1


def pushed_meanwhile(forge: Forge, name: str, text: str) -> None:
    """Between the build and our push somebody else pushes."""
    (forge.root / "theirs").write_text(text)
    environ = " ".join(f"{key}=person" for key in forge.env if key.startswith(("GIT_AUTHOR", "GIT_COMMITTER")))
    forge.before(
        "git",
        " push ",
        f"(export {environ}; cd {forge.root}/person; git pull -q --rebase origin main; cp ../theirs {name}; git add -A;"
        " git commit -qm theirs; git push -q origin HEAD:main)",
    )


def test_on_a_race_it_is_rebased_and_verified_again(forge: Forge) -> None:
    forge.run()
    forge.upstream("2")
    pushed_meanwhile(forge, "hosts.nix", '{ web = "web01"; "db.one" = "db01"; new = "new01"; }')
    status, output = forge.run()
    assert (status, "trying again on top of it" in output) == (0, True), output
    subjects = forge.sh("git --git-dir=origin.git log -3 --format=%s main").splitlines()
    assert subjects == ["flake.lock: update", "theirs", "flake.lock: update"]
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}
    assert forge.pointer("new01")


def test_a_race_with_the_same_update_ends_with_theirs(forge: Forge) -> None:
    forge.run()
    forge.upstream("2")
    ours = forge.sh("git --git-dir=origin.git show main:flake.lock")
    forge.git("pull", "--quiet", "--rebase", "origin", "main")
    forge.sh("nix flake update --flake path:$PWD/person 2>/dev/null")
    theirs = (forge.root / "person/flake.lock").read_text()
    forge.git("checkout", "--quiet", "flake.lock")
    assert theirs.strip() != ours
    pushed_meanwhile(forge, "flake.lock", theirs)
    status, output = forge.run()
    assert status == 0, output
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "theirs"
    assert forge.told() == {"web01": ("2", forge.tip), "db01": ("2", forge.tip)}


def test_what_was_built_for_a_race_that_is_lost_is_held(forge: Forge) -> None:
    forge.run()
    told = forge.told()
    forge.upstream("2")
    pushed_meanwhile(forge, "hosts.nix", '{ web = throw "theirs is bad"; "db.one" = "db01"; }')
    status, output = forge.run()
    assert (status, "theirs is bad" in output, forge.told()) == (1, True, told)
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "theirs"
    roots = forge.sh("nix-store --gc --print-roots")
    held = {line.split(" -> ")[1] for line in roots.splitlines() if line.startswith(f"{forge.state}/")}
    versions = [(Path(path) / "version").read_text() for path in held if "-system-web" in path]
    assert sorted(versions) == ["1\n", "2\n"]


def test_killed_between_push_and_publication_it_is_published_by_the_next_run(forge: Forge) -> None:
    forge.before("ssh-keygen", "-Y sign", "kill -KILL $PPID")
    assert forge.run()[0] == -9
    (forge.root / "runtime/key").unlink()  # as systemd does
    tip = forge.tip
    assert forge.sh("git --git-dir=origin.git log -1 --format=%s main") == "flake.lock: update"
    assert not (forge.state / "cache/systems/db01").exists()
    status, output = forge.run()
    assert (status, forge.tip) == (0, tip), output
    assert forge.told() == {"web01": ("1", tip), "db01": ("1", tip)}


TOKEN = "t0ken-of-this-test"


@contextmanager
def served(forge: Forge) -> Iterator[str]:
    """The origin by HTTPS, for whom has the token alone; gives its URL."""
    forge.sh(
        "openssl req -x509 -newkey ed25519 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        " -keyout tls.key -out tls.crt 2>/dev/null; git --git-dir=origin.git config http.receivepack true"
    )

    class Backend(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            output = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if output != f"x-access-token:{TOKEN}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            requests = {
                "GIT_PROJECT_ROOT": str(forge.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_USER": "x",
            }
            answer = subprocess.run(
                ["git", "http-backend"], input=body, env={**forge.env, **requests}, capture_output=True, check=True
            ).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(forge.root / "tls.crt", forge.root / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/origin.git"
    finally:
        server.shutdown()
        server.server_close()


def test_the_token_gets_to_git_and_nowhere_else(forge: Forge) -> None:
    (forge.root / "bin").mkdir()
    for program in ("git", "nix"):
        seen = forge.root / "bin" / program
        seen.write_text(
            f'#!/bin/sh\n{{ tr "\\0" "\\n" </proc/self/environ; echo "$@"; }} >>{forge.root}/seen\n'
            f'PATH=${{PATH#{forge.root}/bin:}} exec {program} "$@"\n'
        )
        seen.chmod(0o755)
    (forge.root / "credentials/token").write_text(f"{TOKEN}\n")
    with served(forge) as url:
        (forge.root / "credentials/clone").write_text(f'[remote "origin"]\n\turl = {url}\n')
        trusted = {"GIT_SSL_CAINFO": str(forge.root / "tls.crt")}
        status, output = forge.run(**trusted)
        assert status == 0, output
        assert forge.told() == {"web01": ("1", forge.tip), "db01": ("1", forge.tip)}
        seen_text = (forge.root / "seen").read_text()
        assert "rev-parse" in seen_text
        assert "flake update" in seen_text
        assert TOKEN not in seen_text + output
        kept = [file for file in forge.state.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
        assert not kept
        (forge.root / "credentials/token").write_text("another\n")
        forge.commit("readme", "words")
        status, output = forge.run(**trusted)
        assert (status, "main cannot be fetched" in output or "names no default branch" in output) == (1, True), output
        (forge.root / "credentials/token").unlink()
        status, output = forge.run("main", **trusted)
        assert (status, f"main cannot be fetched from {url}" in output) == (1, True), output


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "has no remote named origin"),
        ("https://me:secret@forge.example/fleet.git", "has a password in its URL"),
        ("http://forge.example/fleet.git", "does not use TLS"),
        ("ext::sh -c id", "has a URL that cannot be used"),
        ("--upload-pack=id", "has a URL that cannot be used"),
        # without SSH, which there is no key for
        ("git@127.0.0.1:me/fleet.git", "from https://127.0.0.1/me/fleet.git"),
        ("ssh://git@127.0.0.1:22/me/fleet.git", "from https://127.0.0.1/me/fleet.git"),
        ("https://me@127.0.0.1/fleet.git", "from https://127.0.0.1/fleet.git"),
    ],
)
def test_an_origin_that_cannot_be_used_is_said(tmp_path: Path, url: str | None, message: str) -> None:
    for name in ("credentials", "runtime", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials/clone").write_text(f'[remote "origin"]\n\turl = {url}\n' if url else "")
    (tmp_path / "credentials/token").write_text(f"{TOKEN}\n")
    (tmp_path / "credentials/key").write_text(f"t-1:{base64.b64encode(bytes(64)).decode()}\n")
    status, told = Forge(tmp_path).run("main")
    assert (status, message in told) == (1, True), told
    assert "secret" not in told


def test_a_key_that_is_none_is_said_before_anything_is_fetched(forge: Forge) -> None:
    (forge.root / "credentials/key").write_text("t-1:c2hvcnQ=\n")
    status, output = forge.run()
    assert (status, "signingKeyFile is not a key" in output) == (1, True)
    assert not (forge.state / "work/tree").exists()
