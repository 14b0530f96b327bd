"""Who answers for the cache of machines that pull, or may write there, has no key: he can withhold, and no more.

On a light host of the lab: the attacker's web server answers it what he likes, and what root ran there is looked at
over SSH. Each attack is tried on a machine that would take what was published honestly, which it does in between.
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.base.errors import Usage
from nixherd.fleet.signatures import sign
from nixherd.trust.publish import NAMESPACE, Pointer, SigningKey, parse, read
from tests import nix_cli
from tests.integration.lab_driver import Ended, Lab, edit, until

HOST, OTHER = "light001", "light002"
PORT = 8097
CACHE = f"http://10.78.255.254:{PORT}"
RAN = "/var/ran"
# A system that anybody can make; what it runs, root runs.
EVIL = f"#!/bin/sh\ntouch {RAN}\nln -sfn $(dirname $(dirname $0)) /run/current-system\n"
# What makes a system of our own without a name, or with another's.
RENAMED = """
  let system = (builtins.getFlake "FLAKE").nixosConfigurations.HOST.config.system.build.toplevel; in
  derivation {
    name = "renamed"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = ["-c" "mkdir -p $out/etc && ln -s ${system}/* $out/ 2>/dev/null; rm $out/etc; mkdir $out/etc; NAME"];
  }
"""


@dataclass
class Pulling:
    """A machine that pulls, and what it is answered."""

    lab: Lab
    cache: Path
    key: SigningKey
    before: str = ""
    """what it runs"""

    @property
    def pointer(self) -> Path:
        return self.cache / "systems" / HOST

    def on(self, command: str, check: bool = True) -> Ended:
        key = (self.lab.state / "light" / HOST / "ssh_host_ed25519_key.pub").read_text()
        known = self.lab.state / "known-pulling"
        known.write_text(f"10.78.0.2 {key}")
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        return self.lab.run("ssh", *options, "root@10.78.0.2", command, check=check)

    def pull(self) -> tuple[int, str, str]:
        """Have it look up what it is to run, as its timer would: the status, what it said, and what runs then."""
        ended = self.on(
            "export PATH=/run/current-system/sw/bin:/usr/bin HOME=/root NIX_CONF_DIR=/etc/nix; cd /; "
            "(exec $(sed -n s/^ExecStart=//p /run/current-system/etc/systemd/system/nixherd-pull.service) 2>&1); "
            f"s=$?; echo; echo $s; test ! -e {RAN} && readlink -f /run/current-system"
        )
        *output, status, runs = ended.output.strip().splitlines()
        return int(status), "\n".join(output), runs

    def refuses(self, message: str) -> None:
        status, output, runs = self.pull()
        assert (status != 0, message in output, runs) == (True, True, self.before), output

    def takes(self, system: str) -> None:
        status, output, runs = self.pull()
        assert (status, runs) == (0, system), output
        self.before = runs

    def change(self, text: str) -> None:
        """Give them this marker, and commit that."""
        directory = self.lab.places.fleet / "hosts/light"
        module = f'nixherd.pull = {{ from = "{CACHE}"; publicKey = "{self.key.public}"; }};'
        (directory / "more.nix").write_text(f'{{...}}: {{ {module} environment.etc.marker.text = "{text}"; }}\n')
        if "more.nix" not in (directory / "configuration.nix").read_text():
            edit(directory / "configuration.nix", "  system.state", "  imports = [./more.nix];\n  system.state")
        self.lab.run("sh", "-c", "cd $FLEET && git add -A && git commit -q --no-verify --allow-empty -m change")

    def publish(self) -> dict[str, str]:
        words = ("publish", str(self.cache), HOST, OTHER, "--key-file", str(self.key.file), "--json")
        published: dict[str, str] = json.loads(self.lab.run("nixherd", *words).output)["published"]
        return published

    def built(self, expression: str) -> str:
        flake = f"git+file://{self.lab.places.fleet}"
        words = ("build", "--impure", "--no-link", "--print-out-paths", "--expr", expression.replace("FLAKE", flake))
        return self.lab.run("nix", *words).output.split()[-1]

    def cached(self, path: str, key: Path | None = None) -> None:
        """Have the cache have it, signed by this key or nobody."""
        sign = f"?secret-key={key}" if key else ""
        (self.cache / f"{Path(path).name[:32]}.narinfo").unlink(missing_ok=True)
        self.lab.run("nix", "copy", "--no-check-sigs", "--to", f"file://{self.cache}{sign}", path)

    def says(self, pointer: Pointer, key: SigningKey | None = None, namespace: str = NAMESPACE) -> None:
        """Have the cache say so, signed by the fleet's own key unless by another one."""
        signature = sign(str(pointer), (key or self.key).private, namespace, self.lab.state)
        self.pointer.write_text(f"{pointer}{signature}")


def key_of(lab: Lab, name: str, owner: str = "us") -> SigningKey:
    file = lab.state / f"{owner}-{name}.key"
    lab.run("sh", "-c", f"umask 077; nix key generate-secret --key-name {name} >{file}")
    return SigningKey.read(file)


@contextmanager
def served(lab: Lab, directory: Path) -> Iterator[None]:
    command = ("python3", "-m", "http.server", "--bind", "10.78.255.254", "--directory", str(directory), str(PORT))
    with lab.under_way("sh", "-c", f"exec {shlex.join(command)} 2>/dev/null"):
        until(lambda: lab.run("curl", "-sfo", "/dev/null", CACHE, check=False).status == 0, 10, "the cache answers")
        yield


@pytest.fixture(scope="module")
def pulling(running_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulling]:
    running_lab("reset")
    running_lab("fleet", "2", "--light")
    pulling = Pulling(running_lab, tmp_path_factory.mktemp("cache"), key_of(running_lab, "fleet-1"))
    pulling.change("first")
    running_lab.run("sh", "-c", f"nixherd deploy {HOST} --json 2>/dev/null")
    pulling.before = pulling.on("readlink -f /run/current-system").output.strip()
    with served(running_lab, pulling.cache):
        yield pulling
    running_lab("fleet", "0", "--light")


@pytest.mark.slow
@pytest.mark.lab
def test_who_answers_for_the_cache_can_withhold(pulling: Pulling) -> None:
    lab, now = pulling.lab, 2_000_000_000
    stranger = key_of(lab, "fleet-1", "stranger")  # of the same name
    pulling.change("second")
    published = pulling.publish()
    honest = pulling.pointer.read_text()

    # a system of his own, content-addressed, which Nix takes from anybody
    evil = lab.state / "evil"
    shutil.rmtree(evil, ignore_errors=True)
    (evil / "bin").mkdir(parents=True)
    (evil / "etc").mkdir()
    (evil / "etc/hostname").write_text(f"{HOST}\n")
    (evil / "bin/switch-to-configuration").write_text(EVIL)
    (evil / "bin/switch-to-configuration").chmod(0o755)
    evil_path = lab.run("nix", "store", "add-path", "--name", "nixos-system", str(evil)).output.split()[-1]
    pulling.cached(evil_path)
    pulling.pointer.write_text(f"{evil_path}\n")
    pulling.refuses("it is not signed by fleet-1")
    pulling.pointer.write_text(honest.replace(published[HOST], evil_path))
    pulling.refuses("it is not signed by fleet-1")
    pulling.says(Pointer(HOST, evil_path, None, now), stranger)
    pulling.refuses("it is not signed by fleet-1")
    pulling.says(Pointer(HOST, evil_path, None, now), namespace="git")
    pulling.refuses("it is not signed by fleet-1")

    # what was signed, but not so
    body, begin, signature = honest.partition("-----BEGIN")
    serial = parse(body).serial
    for forged in (
        honest.replace(f"serial={serial}", f"serial={now}"),
        honest.replace(f"host={HOST}", f"host={OTHER}"),
        f"{body}serial={now}\n{begin}{signature}",
        body,
    ):
        pulling.pointer.write_text(forged)
        pulling.refuses("it is not signed by fleet-1")
    pulling.pointer.write_text((pulling.cache / "systems" / OTHER).read_text())
    pulling.refuses(f"it is for {OTHER}")
    pulling.pointer.unlink()
    pulling.refuses("it cannot be fetched")

    pulling.pointer.write_text(honest)
    pulling.takes(published[HOST])

    # an older one, which was signed for this very machine
    pulling.change("third")
    third = pulling.publish()[HOST]
    assert parse(pulling.pointer.read_text().partition(begin)[0]).serial > serial
    pulling.takes(third)
    pulling.pointer.write_text(honest)
    pulling.refuses("is older than the last one seen here")
    pulling.on(f"echo {serial} >/run/nixherd/pull-older")
    pulling.takes(published[HOST])
    assert pulling.on("ls /run/nixherd; stat -c %a /var/lib/nixherd/pull/seen").output.split() == ["deploy", "600"]


@pytest.mark.slow
@pytest.mark.lab
def test_what_root_runs_was_signed_itself_and_is_of_this_machine(pulling: Pulling) -> None:
    """Pointers that are signed well, to what nobody should run: the publisher's mistakes, or what others put there."""
    lab = pulling.lab
    stranger = key_of(lab, "stranger-1")
    pulling.change("fourth")
    published = pulling.publish()
    serial = parse(pulling.pointer.read_text().partition("-----BEGIN")[0]).serial

    def after() -> int:
        nonlocal serial
        serial += 1
        return serial

    evil = lab.state / "evil-signed"
    shutil.rmtree(evil, ignore_errors=True)
    (evil / "bin").mkdir(parents=True)
    (evil / "bin/switch-to-configuration").write_text(EVIL)
    (evil / "bin/switch-to-configuration").chmod(0o755)
    addressed = lab.run("nix", "store", "add-path", "--name", "nixos-system", str(evil)).output.split()[-1]
    pulling.cached(addressed)
    pulling.says(Pointer(HOST, addressed, None, after()))
    pulling.refuses(f"{addressed} is not signed by fleet-1")
    pulling.cached(addressed, pulling.key.file)
    pulling.refuses(f"{addressed} is not signed by fleet-1")

    nameless = pulling.built(RENAMED.replace("HOST", HOST).replace("NAME", ":"))
    another = pulling.built(RENAMED.replace("HOST", HOST).replace("NAME", f"echo {OTHER} >$out/etc/hostname"))
    for path, output in (
        (nameless, "is the system of a machine without a name"),
        (another, f"is the system of {OTHER}"),
    ):
        pulling.cached(path, pulling.key.file)
        pulling.says(Pointer(HOST, path, None, after()))
        pulling.refuses(f"{path} {output}")
    pulling.says(Pointer(HOST, published[OTHER], None, after()))
    pulling.refuses(f"is the system of {OTHER}")

    # one of its own, which somebody else signed; also where the machine has it already, and trusts him
    foreign = pulling.built(
        RENAMED.replace("HOST", HOST).replace("NAME", f"echo {HOST} >$out/etc/hostname; echo 1 >$out/x")
    )
    pulling.cached(foreign, stranger.file)
    pulling.says(Pointer(HOST, foreign, None, after()))
    pulling.refuses("not signed by any of the keys")
    lab.run("sh", "-c", f"NIX_SSHOPTS='-o UserKnownHostsFile={lab.state}/known-pulling' "
            f"nix copy --no-check-sigs --to ssh://root@10.78.0.2 {foreign}")  # fmt: skip
    pulling.refuses(f"{foreign} is not signed by fleet-1")

    pulling.says(Pointer(HOST, published[HOST], None, after()))
    lab.run("sh", "-c", f"NIX_SSHOPTS='-o UserKnownHostsFile={lab.state}/known-pulling' "
            f"nix copy --no-check-sigs --to ssh://root@10.78.0.2 {published[HOST]}")  # fmt: skip
    pulling.takes(published[HOST])


@pytest.mark.lab
def test_what_is_deployed_is_the_signed_commit(pulling: Pulling) -> None:
    lab = pulling.lab
    home, fleet = lab.places.home, lab.places.fleet
    pulling.change("of nobody")
    before = lab.run("git", "-C", str(fleet), "rev-parse", "HEAD^").output.strip()
    signers = home / ".config/nixherd/allowed_signers"
    signers.parent.mkdir(parents=True, exist_ok=True)
    signers.write_text(f'us@x namespaces="git" {(home / ".ssh/id_ed25519.pub").read_text()}')

    def deploy(*words: str) -> tuple[int, str, str]:
        required = ("--data", "require_signed=true", *words)
        ended = lab.run("sh", "-c", f"nixherd deploy {HOST} --json {shlex.join(required)} 2>&1", check=False)
        return ended.status, ended.output, pulling.on("readlink -f /run/current-system; cat /etc/marker").output

    status, output, runs = deploy("--data", f"signed_from={before}")
    assert (status, "it is not signed" in output, "of nobody" in runs) == (3, True, False), output
    key = f"-c gpg.format=ssh -c user.signingkey={home}/.ssh/id_ed25519"
    lab.run("sh", "-c", f"cd $FLEET && git {key} commit -q --no-verify --amend -S -m signed")
    toplevel = lab.run(
        "nix", "eval", "--raw", f"{fleet}#nixosConfigurations.{HOST}.config.system.build.toplevel"
    ).output
    status, output, runs = deploy("--data", f"signed_from={before}")
    assert (status, runs.split()) == (0, [toplevel.splitlines()[-1], "of", "nobody"]), output
    pulling.before = runs.split()[0]
    lab.run("git", "-C", str(fleet), "checkout", "-q", before)
    status, output, runs = deploy()
    lab.run("git", "-C", str(fleet), "checkout", "-q", "-")
    assert (status, "which was proven here before" in output, runs.split()[0]) == (3, True, pulling.before), output


# What the publisher does, without a machine


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(nix_cli.nix("key", "generate-secret", "--key-name", "test-1"))
    return SigningKey.read(file)


@pytest.mark.nix
def test_a_pointer_is_what_its_key_signed(key: SigningKey, tmp_path: Path) -> None:
    with key.file.open() as secret:
        argv, environment = ["nix", "key", "convert-secret-to-public"], nix_cli.environment()
        public = subprocess.run(argv, stdin=secret, env=environment, capture_output=True, text=True, check=True).stdout
    assert key.public == public.strip()
    pointer = Pointer("dev", "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos", "4f" * 20, 7)
    file = tmp_path / "dev"
    file.write_text(key.sign(pointer, tmp_path))
    assert read(file, key.public, "dev", tmp_path) == pointer
    assert read(file, key.public, "dev2", tmp_path) is None
    file.write_text(file.read_text().replace("serial=7", "serial=8"))
    assert read(file, key.public, "dev", tmp_path) is None
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("sign-")] == []
    assert key.private not in repr(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos\n",
        "{good}serial=9\n",
        "{good}\n",
        " {good}",
        "{good_but_08}",
        "{other_form}",
    ],
)
def test_a_pointer_has_one_form(text: str) -> None:
    good = str(Pointer("dev", "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos", None, 8))
    assert str(parse(good)) == good
    other, octal = good.replace("system 1", "system 2"), good.replace("serial=8", "serial=08")
    with pytest.raises(ValueError):
        parse(text.replace("{good}", good).replace("{good_but_08}", octal).replace("{other_form}", other))


@pytest.mark.nix
def test_a_key_that_others_may_read_signs_nothing(key: SigningKey) -> None:
    for mode in (0o640, 0o604):
        key.file.chmod(mode)
        with pytest.raises(Usage, match="others may read this key"):
            SigningKey.read(key.file)
    key.file.chmod(0o600)
    name, _, encoded = key.file.read_text().partition(":")
    for text in (
        "",
        "x",
        f"{name}:",
        f":{encoded}",
        f"{name}:{encoded[:-8]}",
        f"{name}:{'A' * 86}==",
        f"a b:{encoded}",
    ):
        key.file.write_text(text)
        with pytest.raises(Usage, match="--key-file"):
            SigningKey.read(key.file)
