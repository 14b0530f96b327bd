"""The proof as a row of a deploy: what is reported, what stops a run, and what is not known; against a real sshd."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from nixherd.base.ssh_keys import HOST_KEY, KeyPair
from nixherd.fleet.load import load_fleet
from nixherd.nix.declared import Declared, DeclaredSecret, DeclaredTemplate, Identity
from nixherd.operations import sops
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git, identity_of, nobodys, repository
from tests.runs import DESCRIBED, Outcome, Said, connected, evaluates_to, perform, vm
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

Proves = Callable[..., Outcome]
TOKEN = DeclaredSecret("api_token", "/run/secrets/api_token", "secrets/dev.yaml", "yaml", "api_token")
WIFI = DeclaredSecret("wifi/password", "/srv/wifi", "secrets/common.yaml", "yaml", "wifi/password", mode="0440")
CONF = DeclaredTemplate("conf", "/run/secrets/rendered/conf")
KEYS = Identity(None, age_ssh_keys=(HOST_KEY,))
DECLARED = Declared("dev", (TOKEN, WIFI), (CONF,), (KEYS,))
KEY = f"cp /run/test/host_key {HOST_KEY}"
FILLED = f"""{KEY}
mkdir -p /run/secrets.d/1/wifi /run/secrets.d/1/rendered /srv; ln -s /run/secrets.d/1 /run/secrets; cd /run/secrets
printf xyzzy >api_token; printf hunter2 >wifi/password; echo t=xyzzy >rendered/conf
chmod 400 api_token rendered/conf; chmod 440 wifi/password; ln -s /run/secrets/wifi/password /srv/wifi"""
DECRYPTED = ["/run/secrets/api_token (400 root)", "/run/secrets/rendered/conf (400 root)", "/srv/wifi (440 root)"]


@pytest.fixture
def fleet(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dev is enrolled."""
    nobodys(monkeypatch, tmp_path)
    place = repository(tmp_path / "fleet", enrolled=True)
    follow(shared, place)
    return place


def follow(shared: Shared, place: Path, user: str = "root") -> None:
    found = load_fleet(place)
    hosts = {name: replace(host, user=user) for name, host in found.hosts.items()}
    shared.fleet = replace(shared.fleet, path=str(place), hosts={**hosts, "metal": shared.fleet.hosts["metal"]})


@pytest.fixture
def proves(emulator: Emulator, sshd: Sshd, shared: Shared, fleet: Path, said: Said) -> Proves:
    """Starts `dev` with this set-up, and lets it prove what the flake declares; again where it has been started."""
    pair = KeyPair(key("dev").private_openssh, key("dev").public)
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    system = f"mkdir -p {DESCRIBED.toplevel}; ln -s {DESCRIBED.toplevel} /run/current-system"

    def one(
        *setup: str, declared: Declared = DECLARED, strict: bool = True, data: dict[str, Any] | None = None, **says: Any
    ) -> Outcome:
        shared.evaluator.forget()
        evaluates_to(shared, declared=declared, **says)
        if setup:
            sshd.kill()
            sshd.start(pair, system="ID=nixos", setup="\n".join((system, *setup)))
        own = {"ssh_port": sshd.port, "ssh_key": str(sshd.key), "boot_deadline": 10, **(data or {})}
        host = connected(shared, age_identity=str(identity_of(fleet.parent)), **own)
        return perform(host, said, sops.decrypted, strict=strict)

    return one


def reported(outcome: Outcome) -> list[str]:
    return [line.removeprefix("decrypted ").split(",")[0] for line in outcome.said if line.startswith("decrypted")]


def test_what_is_reported_is_what_was_read_back(proves: Proves) -> None:
    outcome = proves(FILLED)
    assert (outcome.changed, outcome.failed, reported(outcome)) == (False, False, DECRYPTED), outcome.said
    assert not any("xyzzy" in line or "hunter2" in line for line in outcome.said)


def test_an_empty_secret_is_one_and_a_difference_is_said(proves: Proves) -> None:
    outcome = proves(FILLED, ": >/run/secrets/api_token")
    assert not outcome.failed
    assert [line for line in outcome.said if line.endswith("…; empty, as its file says")]
    differs = proves(FILLED, "chmod 444 /run/secrets/api_token")
    assert differs.failed
    again = "`sudo /run/current-system/activate` on dev"
    text = f"/run/secrets/api_token: its mode is 0444, declared 0400; {again}"
    assert differs.said[-1] == f"dev: not as declared: {text}"
    lenient = proves(strict=False)
    assert (lenient.failed, lenient.said[-1]) == (False, f"dev: not as declared: {text}")
    older = proves(strict=False, toplevel=f"{DESCRIBED.toplevel}-new")
    assert older.said[-1].endswith("/run/secrets/api_token: its mode is 0444, declared 0400; `nixherd deploy dev`")


def test_a_secret_with_a_path_is_followed_and_what_shadows_it_stops_the_run(proves: Proves) -> None:
    outcome = proves(FILLED, "rm /srv/wifi; printf mine >/srv/wifi", strict=False)
    assert outcome.failed
    again = "`sudo /run/current-system/activate` on dev"
    assert outcome.said[-1] == f"dev: not linked: /srv/wifi: /srv/wifi is a file there, not sops-nix's link; {again}"
    outcome = proves(FILLED, "rm /srv/wifi; mkdir /srv/wifi")
    assert outcome.said[-1].endswith(f"not sops-nix's link; move /srv/wifi away there, then {again}")


SPECIAL = f"/nix/store/{'s' * 32}-nixos-system-dev-26.05-travel"
VPN = DeclaredSecret("vpn", "/run/secrets/vpn", "secrets/dev.yaml", "yaml", "vpn")
TRAVELS = replace(
    DECLARED,
    specialisations={"travel": replace(DECLARED, secrets=(replace(TOKEN, mode="0440"), VPN)), "other": DECLARED},
)
IN_TRAVEL = f"""mkdir -p {SPECIAL} {DESCRIBED.toplevel}/specialisation
ln -s {SPECIAL} {DESCRIBED.toplevel}/specialisation/travel; ln -sfn {SPECIAL} /run/current-system"""


def test_a_specialisation_that_runs_is_judged_by_what_it_declares(proves: Proves) -> None:
    """Of the base system it has neither a secret's mode nor /srv/wifi."""
    there = "cd /run/secrets; rm -r wifi /srv/wifi; chmod 440 api_token; printf x >vpn; chmod 400 vpn"
    outcome = proves(FILLED, there, IN_TRAVEL, declared=TRAVELS)
    assert not outcome.failed, outcome.said
    assert reported(outcome) == [
        "/run/secrets/api_token (440 root)", "/run/secrets/rendered/conf (400 root)", "/run/secrets/vpn (400 root)"
    ]  # fmt: skip
    assert "dev runs its specialisation travel, which is judged by what it declares itself" in outcome.said
    lacking = proves(FILLED, "chmod 440 /run/secrets/api_token", IN_TRAVEL, declared=TRAVELS)
    assert lacking.failed
    assert lacking.said[-1].startswith("dev: not decrypted: /run/secrets/vpn: ")
    assert lacking.said[-1].endswith(AGAIN), "what runs is what the flake says"
    base = proves(FILLED, f"mkdir -p {DESCRIBED.toplevel}/specialisation", declared=TRAVELS)
    assert (base.failed, reported(base)) == (False, DECRYPTED)


def test_a_specialisation_of_an_older_system_is_one(proves: Proves) -> None:
    older = f"{DESCRIBED.toplevel}-older"
    profile = "/nix/var/nix/profiles/system"
    setup = f"""mkdir -p {SPECIAL} {older}/specialisation /nix/var/nix/profiles; ln -sfn {older} {profile}
    ln -s {SPECIAL} {older}/specialisation/travel; ln -sfn {SPECIAL} /run/current-system"""
    lacking = proves(FILLED, "chmod 440 /run/secrets/api_token", setup, declared=TRAVELS)
    assert lacking.said[-1].startswith("dev: not decrypted: /run/secrets/vpn: ")
    assert lacking.said[-1].endswith("`nixherd deploy dev`")


# What is missing

NAMES = "/run/secrets/api_token, /srv/wifi, /run/secrets/rendered/conf"
BOTH = f"dev: not decrypted: {NAMES}: not encrypted for it: secrets/common.yaml, secrets/dev.yaml; "
AGAIN = "`sudo /run/current-system/activate` on dev"
OLDER = "its system is older than the files, which are encrypted for it by now; `nixherd deploy dev`"


def complaint(text: str) -> str:
    """What the log of a boot has in it."""
    program = f"/nix/store/{'a' * 32}-sops-install-secrets-0.0.1/bin/sops-install-secrets"
    return f"mkdir -p /run/log; echo {quote(f'{program}: {text}')} >/run/log/stage-2-init.log"


def change(fleet: Path, file: str, old: str, new: str) -> None:
    text = (fleet / file).read_text()
    assert old in text
    (fleet / file).write_text(text.replace(old, new))
    git(fleet, "commit", "-qam", "change")


def test_the_advice_for_a_host_that_the_files_are_not_for(proves: Proves, fleet: Path, tmp_path: Path) -> None:
    """What each advice comes to is seen in the lab (tests/integration/test_secrets_proof.py)."""
    enrolled = (fleet / "secrets/.sops.yaml").read_text()
    before = repository(tmp_path / "before")
    for name in ("secrets/.sops.yaml", "secrets/common.yaml", "secrets/dev.yaml"):
        (fleet / name).write_bytes((before / name).read_bytes())
    git(fleet, "commit", "-qam", "dev is not a recipient")
    outcome = proves(KEY)
    assert outcome.failed
    assert outcome.said[-1] == f"{BOTH}`nixherd secrets add-host dev`, then `nixherd deploy dev`"
    lenient = proves(strict=False)
    assert (lenient.failed, lenient.said[-1]) == (False, outcome.said[-1])  # there is nothing to show yet
    rules = (fleet / "secrets/.sops.yaml").read_text()
    (fleet / "secrets/.sops.yaml").write_text(rules.replace("path_regex: ^dev", "path_regex: ^nobodys"))
    assert proves().said[-1] == f"{BOTH}`nixherd secrets add-host dev --create`, then `nixherd deploy dev`"
    (fleet / "secrets/.sops.yaml").write_text(enrolled)
    assert proves().said[-1] == f"{BOTH}`nixherd secrets apply`, then `nixherd deploy dev`"
    change(fleet, "hosts.nix", key("dev").public, "placeholder")
    enroll = "enroll it (`nixherd enroll dev`)"
    assert proves().said[-1] == f"{BOTH}{enroll}, then `nixherd deploy dev`"


def test_the_advice_for_a_machine_that_could_decrypt(proves: Proves) -> None:
    missing = f"dev: not decrypted: {NAMES}: "
    older = proves(KEY, toplevel=f"{DESCRIBED.toplevel}-new")
    assert (older.failed, older.said[-1]) == (True, f"{missing}{OLDER}")
    assert not proves(strict=False, toplevel=f"{DESCRIBED.toplevel}-new").failed
    assert proves(strict=False).said[-1] == f"{missing}/run/secrets does not exist; {AGAIN}"
    unit = "printf '#!/bin/sh\\n[ $1 = cat ]\\n' >/usr/bin/systemctl"
    assert proves(KEY, unit).said[-1].endswith("; `sudo systemctl restart sops-install-secrets` on dev")
    absent = proves(f"rm -f {HOST_KEY}")
    there = f"{HOST_KEY}, which it decrypts with, does not exist there"
    assert absent.said[-1].endswith(f"{there}; put it there, then {AGAIN}")


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (
            "cannot override /srv/wifi: remove /srv/wifi: directory not empty",
            f"move /srv/wifi away there, then {AGAIN}",
        ),
        (
            "secret api_token in /nix/store/x-dev.yaml is not valid: the key 'api_token' cannot be found",
            "`nixherd secrets edit secrets/dev.yaml`, then `nixherd deploy dev`",
        ),
        ("failed to lookup user 'web': user: unknown user web", "declare the user web, or give the secret to another"),
        ("failed to decrypt 'x': Error getting data key: 0 successful groups required, got 0", AGAIN),
    ],
    ids=["override", "key", "user", "data-key"],
)
def test_what_the_machine_complains_of(proves: Proves, line: str, remedy: str) -> None:
    outcome = proves(KEY, complaint(line), strict=False)
    assert outcome.failed
    text = f"dev: not decrypted: {NAMES}: it says: sops-install-secrets: {line}; {remedy}"
    assert outcome.said[-1].startswith(text), outcome.said[-1]


def test_the_advice_for_a_machine_with_another_key(proves: Proves) -> None:
    other = key("other")
    outcome = proves(f"cat >{HOST_KEY} <<'E'\n{other.private_openssh}E\nchmod 600 {HOST_KEY}")
    pinned = "encrypted for the key that hosts.nix pins, and /etc/ssh/ssh_host_ed25519_key there is another one"
    line = " ".join(other.public.split()[:2])
    assert f"{pinned}: secrets/common.yaml, secrets/dev.yaml" in outcome.said[-1]
    step = f'if that is its key: restart sshd there, set dev.publicKey = "{line}" in hosts.nix, '
    step += "`nixherd secrets add-host dev`"
    assert outcome.said[-1].endswith(f"; {step}, then `nixherd deploy dev`")
    by_file = replace(DECLARED, identities=(Identity(None, age_key_file="/var/lib/sops.txt"),))
    outcome = proves(f"mkdir -p /var/lib; echo '# public key: {other.recipient}' >/var/lib/sops.txt", declared=by_file)
    with_it = f"not encrypted for what it decrypts with, {other.recipient} (/var/lib/sops.txt)"
    assert with_it in outcome.said[-1]
    assert "name that key in the file's rule of .sops.yaml, `nixherd secrets apply`, then" in outcome.said[-1]


@pytest.mark.parametrize("way", ["link", "..", "."])
def test_files_are_the_same_however_the_directory_is_named(
    proves: Proves, fleet: Path, shared: Shared, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = fleet.parent / "link"
    link.symlink_to(fleet)
    monkeypatch.chdir(fleet)
    follow(shared, {"link": link, "..": fleet / "hosts" / "..", ".": Path()}[way])
    assert proves(KEY, toplevel=f"{DESCRIBED.toplevel}-new").said[-1].endswith(OLDER)


# What is not known


@pytest.mark.parametrize(
    ("tool", "words"), [("stat", "its answer lacks it"), ("sha256sum", "it could not be read")], ids=["stat", "hash"]
)
def test_what_is_not_known_is_not_passed_over(proves: Proves, tool: str, words: str) -> None:
    outcome = proves(FILLED, f"ln -sf /bin/false /usr/bin/{tool}", strict=False)
    assert outcome.failed, outcome.said
    assert outcome.said[-1] == f"dev: not known: {NAMES}: {words}", outcome.said
    assert not any("not decrypted" in line for line in outcome.said)


def test_a_declaration_that_is_not_known(proves: Proves) -> None:
    outcome = proves(FILLED, declared=replace(DECLARED, problem="bob's home cannot be evaluated"), strict=False)
    assert outcome.said[-1] == "dev: not known: what its configuration declares: bob's home cannot be evaluated"
    assert outcome.failed


def home(user: str) -> Declared:
    directory = f"/home/{user}/.config/sops-nix/secrets"
    path = f"{directory}/mail"
    mail = DeclaredSecret("mail", path, "secrets/dev.yaml", "yaml", "mail", owner="", group="", user=user)
    return Declared("dev", (mail,), identities=(Identity(user, age_ssh_keys=("/none",)),), symlinks={user: directory})


def test_a_home_is_proven_too_and_one_that_waits_for_its_user_is_no_failure(proves: Proves) -> None:
    made = """useradd -m bob; r=/run/user/$(id -u bob); d=/home/bob/.config/sops-nix; mkdir -p $d
ln -s $r/secrets.d/1 $d/secrets"""
    waits = "/home/bob/.config/sops-nix/secrets/mail: nobody is logged in as bob there"
    outcome = proves(made, declared=home("bob"), strict=False)
    assert (outcome.failed, outcome.said[-1].startswith(f"dev: not decrypted yet: {waits}")) == (False, True)
    strict = proves(declared=home("bob"))
    assert strict.failed
    assert strict.said[-1].endswith("; log in as bob, or set users.users.bob.linger = true")
    filled = "mkdir -p $r/secrets.d/1; echo x >$r/secrets.d/1/mail; chmod 400 $r/secrets.d/1/mail; chown -R bob: $r"
    assert reported(proves(made, filled, declared=home("bob"))) == ["/home/bob/.config/sops-nix/secrets/mail (400 bob)"]
    gone = proves(made, "mkdir -p $r", declared=home("bob"))
    assert gone.said[-1].endswith("put it there, then `systemctl --user restart sops-nix` as bob on dev"), gone.said[-1]
    nobody = proves(KEY, declared=home("nobody-there"))
    assert "not known: /home/nobody-there/.config" in nobody.said[-1]
    assert not proves(declared=home("nobody-there"), strict=False).failed


BOB = "useradd -m -s /bin/bash bob && usermod -p '*' bob; chmod 755 /run/test; chmod 644 /run/test/authorized_keys"


def test_sudo_that_asks_for_a_password_is_not_a_machine_without_secrets(
    proves: Proves, shared: Shared, fleet: Path
) -> None:
    follow(shared, fleet, user="bob")
    asks = f"dev: not known: {NAMES}: sudo asks for a password there; give it on stdin with --data sudo_password=stdin"
    for strict in (True, False):
        outcome = proves(FILLED, BOB, strict=strict)
        assert outcome.failed
        assert outcome.said[-1].startswith(asks)
    free = "echo 'bob ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/bob; chmod 440 /etc/sudoers.d/bob"
    outcome = proves(FILLED, BOB, free)
    assert (outcome.failed, reported(outcome)) == (False, DECRYPTED), outcome.said


def test_a_login_shell_that_prints_changes_nothing(proves: Proves) -> None:
    noise = "printf '%s\\n' 'echo nixherd-secrets; echo 0.is=absent; echo nixherd-secrets-end' >/root/.bashrc"
    outcome = proves(FILLED, noise)
    assert (outcome.failed, reported(outcome)) == (False, DECRYPTED), outcome.said


def test_a_machine_that_goes_away_meanwhile_is_not_known(proves: Proves) -> None:
    gone = "printf '#!/bin/sh\\nkill -9 -1\\n' >/usr/bin/sha256sum"
    outcome = proves(FILLED, f"rm /usr/bin/sha256sum; {gone}; chmod +x /usr/bin/sha256sum", strict=False)
    assert outcome.failed
    assert outcome.said[-1].startswith(f"dev: not known: {NAMES}: "), outcome.said
    assert not any("not decrypted" in line for line in outcome.said)
