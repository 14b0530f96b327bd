"""Nobody is root through Nix: neither an admin's processes without sudo, nor who holds a key that pushes closures."""

import json
import secrets
import shlex
import string
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.deploy.protocol import PARTS, PROTOCOL
from tests.integration.deployed import DEADLINES, Fleet, order, outcomes, signing_key
from tests.integration.lab_driver import Ended, Lab
from tests.integration.test_secrets import files_with, pattern, watched
from tests.integration.verified import report
from tests.nix_cli import environment, nix
from tests.properties import examples

pytestmark = pytest.mark.nix

MODULES = Path(__file__).parents[2] / "fleet/modules/nixos"
PROFILE = "/nix/var/nix/profiles/system"


def lab_test(test: Callable[..., None]) -> Callable[..., None]:
    marked: Callable[..., None] = pytest.mark.lab(pytest.mark.slow(test))
    return marked


# Words of a forced command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that note how they are called, in the place of those that the gate would start."""
    place = tmp_path_factory.mktemp("gate")
    for name in ("setpriv", "program"):
        (place / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {name} \"$@\"\n")
        (place / name).chmod(0o755)
    return place


def said_to(gate: Path, words: str) -> list[str]:
    """What was started, word by word."""
    variables = {**environment(), "SSH_ORIGINAL_COMMAND": words}
    variables["PATH"] = f"{gate}:{variables['PATH']}"
    argv = ["sh", str(MODULES / "pushed.sh"), "nobody", "k-1:x", str(gate / "program")]
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, errors="replace", timeout=20)
    return done.stdout.splitlines()


def test_closures_are_received_by_another_user_and_nothing_is_built_for_it(gate: Path) -> None:
    started = said_to(gate, "nix-store --serve --write")
    assert started[:4] == ["setpriv", "--reuid=nobody", "--regid=nobody", "--clear-groups"]
    assert started[-8:] == ["nix-store", "--serve", "--write", "--option", "max-jobs", "0", "--option", "builders"] or (
        started[-9:] == ["nix-store", "--serve", "--write", "--option", "max-jobs", "0", "--option", "builders", ""]
    )
    assert "NIX_REMOTE=daemon" in started


@pytest.mark.parametrize(
    "words",
    [
        *("", "id", "sh", "nixherd", "nixherd watch x", "nixherd alone x", "nixherd  begin", "nix-store --serve"),
        *("nix-store --serve --write --option max-jobs 4", "nix-store --serve --write;id", "nix-store --import"),
        *("nix-daemon --stdio", "nixherd last\nid", "nixherd say x back \x1b[2J", "internal-sftp", "scp -t /etc"),
        "nixherd begin x me switch - 1 1 -",
        f"nixherd begin x me switch /nix/store/{'0' * 32}-nixos-system-dev - 1 1 -",
        f"nixherd begin x me switch /nix/store/{'0' * 32}-a/../../../tmp - 1 1 -",
        "nixherd begin x me switch /nix/store/../../tmp/x - 1 1 -",
        "nixherd begin x me switch /tmp/x - 1 1 -",
    ],
)
def test_other_words_start_nothing(gate: Path, words: str) -> None:
    started = said_to(gate, words)
    assert not started or started[0].startswith("refused="), started


@examples(60)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_whatever_follows_is_words_and_no_program(gate: Path, text: str) -> None:
    for words in (text, f"nixherd {text}", f"nixherd say x back {text}", f"nix-store --serve --write{text or ' '}"):
        started = said_to(gate, words)
        assert not started or started[0] == "program" or started[0].startswith("refused="), started
        if started and started[0] == "program":
            assert started[1] == "system"
            assert started[2] in ("look", "note", "say", "last")


# Numbers, and the generation that a deployment is to be again -------------------------------------------------------

WRONG = ["08", "00", "-1", "+1", "1e3", "0x10", "1.5", "86401", "99999999999999999999", "1 ", "a", "@", "-", "10s"]


def begin(home: Path, system: str, deadline: str, confirm: str, generation: str) -> str:
    variables = {**environment(), "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    words = [str(PROTOCOL), "x", "me", "switch", system, "-", deadline, confirm, generation, "-", "-", "-", "-"]
    program = home / "program"
    program.write_text("".join((MODULES / part).read_text() for part in PARTS))
    argv = ["sh", str(program), "home", "begin", *words]
    return subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("word", WRONG)
def test_a_number_is_one_before_anything_begins(tmp_path: Path, word: str) -> None:
    system = f"/nix/store/{'0' * 32}-home"
    for output in (begin(tmp_path, system, word, "10", "-"), begin(tmp_path, system, "10", word, "-")):
        assert "\nrefused=" in output, output
        assert "must be seconds" in output or "not allowed" in output, output
    assert not list(tmp_path.rglob("settings"))


@examples(60)
@given(st.text(string.ascii_letters + string.digits + "@._:+-", min_size=1, max_size=12))
def test_what_the_shell_counts_with_is_a_decimal_number(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    output = begin(tmp_path_factory.mktemp("home"), f"/nix/store/{'0' * 32}-home", word, "10", "-")
    is_number = word.isdecimal() and str(int(word)) == word and int(word) <= 86400
    assert ("must be seconds" in output) is not is_number, output


def test_a_generation_leads_to_what_is_proven(tmp_path: Path) -> None:
    """Else its number would make one the default at boot that nobody has seen running."""
    proven, other = (_home(name) for name in ("proven", "other"))
    profiles = tmp_path / "state/nix/profiles"
    profiles.mkdir(parents=True)
    (profiles / "home-manager-1-link").symlink_to(other)
    (profiles / "home-manager-2-link").symlink_to(proven)
    (profiles / "home-manager").symlink_to("home-manager-1-link")
    for generation, why in (
        ("1", "generation 1 is not"),
        ("3", "generation 3 is not"),
        ("02", "02 is not a generation"),
    ):
        assert why in begin(tmp_path, proven, "10", "10", generation)
    assert (profiles / "home-manager").readlink().name == "home-manager-1-link"
    assert "state=" in begin(tmp_path, proven, "10", "1", "2")


def _home(name: str) -> str:
    """A generation of Home Manager, as far as it can be activated."""
    return built(name, 'mkdir $out; printf "#!/bin/sh\\n" >$out/activate; chmod +x $out/activate')


def built(name: str, script: str) -> str:
    return nix("build", "--no-link", "--print-out-paths", "--impure", "--expr", expression(name, script)).strip()


def expression(name: str, script: str) -> str:
    words = 'system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin"'
    return f'derivation {{ name = "{name}"; {words}; args = ["-c" {json.dumps(script)}]; }}'


# Deployed machines --------------------------------------------------------------------------------------------------


@lab_test
def test_a_trusted_users_hook_is_nobodys_on_a_deployed_machine(fleet: Fleet) -> None:
    """Every program of an admin's, without a password: Nix's hooks would be root's, and so would be what it builds."""
    hooks = ("post-build-hook", "pre-build-hook", "diff-hook", "build-hook")
    options = " ".join(f"--option {hook} /tmp/hook" for hook in hooks)
    nonce = secrets.token_hex(8)
    drv = shlex.quote(expression(f"built-{nonce}", "/usr/bin/id -u >$out"))
    script = f"""
printf '%s\\n' '#!/bin/sh' 'id -u >>/tmp/hook-ran' >/tmp/hook; chmod +x /tmp/hook
nix store info --json 2>/dev/null
cat $(nix build --impure --no-link --print-out-paths --option run-diff-hook true {options} --expr {drv} 2>/dev/null)
cat /tmp/hook-ran 2>/dev/null || echo never
"""
    store, builder, hook = fleet.on("dev", script).output.split()
    assert (json.loads(store)["trusted"], hook) == (0, "never")
    assert int(builder) > 30000
    _drv, unsigned = built_in(fleet.lab, f"unsigned-{nonce}")
    ended = fleet.lab.run("sh", "-c", f"{raw_copy(fleet, 'abl030@dev')} {unsigned}", check=False)
    assert "lacks a signature by a trusted key" in ended.output


def built_in(lab: Lab, name: str) -> tuple[str, str]:
    """A derivation of the lab's store, and what it was built to."""
    file = lab.state / "one.nix"
    file.write_text(expression(name, "/usr/bin/id >$out"))
    output = lab.run(
        "sh", "-c", f"nix-instantiate {file} 2>/dev/null; nix-build --no-out-link {file} 2>/dev/null"
    ).output
    drv, out = output.split()
    return drv, out


def options_for(fleet: Fleet, host: str) -> str:
    """OpenSSH's, for whoever has our key and no program of ours."""
    fleet.on(host, "true", check=False)  # which leaves its key in that file
    return f"-o UserKnownHostsFile={fleet.lab.state}/known-{host} -o StrictHostKeyChecking=yes -o BatchMode=yes"


def raw_copy(fleet: Fleet, target: str) -> str:
    """Nix's own copy to a machine."""
    user, _, host = target.partition("@")
    copy = f"nix copy --no-check-sigs --to ssh://{user}@{report(fleet.lab, host)['address']}"
    return f'NIX_SSHOPTS="{options_for(fleet, host)}" {copy}'


@lab_test
def test_a_plain_user_deploys_with_a_sudo_that_asks(fleet: Fleet) -> None:
    """Built here, on the machine, on a third one (without a password: test_who_builds). The password is given for a
    machine that begins to ask for it, and is nowhere but on stdin; nothing stays at its user's home."""
    word = secrets.token_hex(12)
    fleet.on("dev3", f"printf abl030:{word} | sudo chpasswd")
    fleet.broken_by("dev3", "{lib, ...}: { security.sudo.wheelNeedsPassword = lib.mkForce true; }")
    _ended, document = fleet.deploy("dev3", "--confirm-deadline", "6", check=False)
    assert outcomes(document) == {"dev3": "rolled back"}
    assert "sudo: a password is required" in document["hosts"][0]["why"]
    given = fleet.lab.state / "word"
    given.write_text(f"{word}\n")
    at_home = "cd /home/abl030; find . -name .local -prune -o -type f -print | sort"

    def deploy(place: str) -> None:
        fleet.change("dev3", f"built on {place}")
        words = f"--data build_on={place} --json --ask-sudo-password"
        ended = fleet.lab.run("sh", "-c", f"nixherd deploy dev3 {words} <{given} 2>/dev/null", check=False)
        assert outcomes(json.loads(ended.output)) == {"dev3": "deployed"}, ended.output
        assert fleet.on("dev3", "cat /etc/marker").output == f"built on {place}"

    before = fleet.on("dev3", at_home).output
    with watched(pattern(word.encode())) as seen:
        deploy("local")
        assert fleet.on("dev3", "sudo -n true", check=False).status != 0
        fleet.change("dev3", "without a password")
        ended, document = fleet.deploy("dev3", check=False)
        assert (ended.status, outcomes(document)) == (4, {"dev3": "failed"})
        assert "dev3: sudo asks for a password there" in document["hosts"][0]["why"]
        deploy("target")
        fleet.lab("break", "dev3")
        deploy("dev2")
    assert seen == set()
    given.unlink()
    assert files_with(pattern(word.encode()), fleet.lab.state / "home") == set()
    assert fleet.on("dev3", at_home).output == before
    fleet.on("dev3", "sudo -n true")


@lab_test
def test_a_key_that_pushes_closures_is_not_root(fleet: Fleet) -> None:
    key, public = signing_key(fleet.lab)
    login = (fleet.lab.state / "home/.ssh/id_ed25519.pub").read_text().strip()
    push = f'nixherd = {{ trustedKeys = ["{public}"]; access = {{ kind = "push-closure"; keys = ["{login}"]; }}; }};'
    fleet.broken_by("dev3", f"{{ {push} }}")
    fleet.deploy("dev3")
    sign = ("--data", f"sign_with={key}")
    with order(fleet, dev3='access = "push-closure";'):
        fleet.change("dev3", "pushed")
        ended, document = fleet.deploy("dev3", check=False)
        assert (ended.status, outcomes(document)) == (4, {"dev3": "failed"})
        assert "trusted-public-keys has signed, and none has; say sign_with=KEY_FILE" in document["hosts"][0]["why"]
        _what_else_it_may_not(fleet, key)
        _ended, document = fleet.deploy("dev3", *sign)
        assert outcomes(document) == {"dev3": "deployed"}
        now = fleet.machine("dev3")
        assert (now.marker, now.current == now.profile == document["hosts"][0]["new"]) == ("pushed", True)
        _which_numbers_it_may_say(fleet, now.current)
        assert outcomes(fleet.deploy("dev3", *sign)[1]) == {"dev3": "unchanged"}
        fleet.broken_by(
            "dev3",
            f'{{ {push} systemd.services.x = {{ wantedBy = ["multi-user.target"]; '
            'serviceConfig.Type = "oneshot"; serviceConfig.ExecStart = "/usr/bin/false"; }; }',
        )
        _ended, document = fleet.deploy("dev3", *sign, *DEADLINES, check=False)
        assert (outcomes(document), "units failed: x.service" in document["hosts"][0]["why"]) == (
            {"dev3": "rolled back"},
            True,
        )
        assert fleet.machine("dev3") == now
        for words in (("exec", "--", "id"), ("fact", "facts.nixos.CurrentSystem"), ("operations.nixos.gc",)):
            ended = fleet.lab.pyinfra("-y", "inventory.py", "--limit", "dev3", *words, check=False)
            assert (ended.status != 0, "it takes forced commands alone" in ended.output) == (True, True), ended.output
    fleet.lab("break", "dev3")
    fleet.deploy("dev3")


def _what_else_it_may_not(fleet: Fleet, key: Path) -> None:
    """Bring what nobody signed, have anything built, or begin with what is not a system of this machine's."""
    lab, copy, nonce = fleet.lab, raw_copy(fleet, "root@dev3"), secrets.token_hex(8)

    def make(script: str) -> Ended:
        return lab.run("sh", "-c", script, check=False)

    def begins(system: str) -> str:
        return fleet.on("root@dev3", f"nixherd begin {PROTOCOL} x me switch {system} - 8 8 - - - -", check=False).output

    drv, out = built_in(lab, f"theirs-{nonce}")
    assert "lacks a signature by a trusted key" in make(f"{copy} {out}").output
    make(f"nix key generate-secret --key-name other-1 >{key}.other; nix store sign -r -k {key}.other {out}")
    assert "lacks a signature by a trusted key" in make(f"{copy} {out}").output
    assert make(f"{copy} {drv}").status == 0
    request = lab.state / "request"
    request.write_bytes(build_request(f"{drv}!out"))
    ssh = f"ssh {options_for(fleet, 'dev3')} root@{report(lab, 'dev3')['address']}"
    # who hangs up ends a build
    output = make(f"(cat {request}; sleep 8) | {ssh} nix-store --serve --write").output
    assert "Unable to start any build" in output
    assert fleet.on("dev3", f"test -e {out}", check=False).status != 0

    crafted = lab.state / f"nixos-system-dev3-{nonce}"
    (crafted / "bin").mkdir(parents=True)
    (crafted / "etc").mkdir()
    (crafted / "etc/hostname").write_text("dev3\n")
    (crafted / "bin/switch-to-configuration").write_text("#!/bin/sh\nid >/pwned\n")
    (crafted / "bin/switch-to-configuration").chmod(0o755)
    crafted_path = make(f"nix store add {crafted}").output.strip()
    make(f"nix store sign -k {key} {crafted_path}")
    assert make(f"{copy} {crafted_path}").status == 0
    assert f"refused={crafted_path} is named by its content" in begins(crafted_path)

    other = make(f"nix build --no-link --print-out-paths '{lab.places.fleet}#{toplevel('dev2')}' 2>/dev/null").output
    make(f"nix store sign -r -k {key} {other}")
    assert make(f"{copy} {other.strip()}").status == 0
    assert f"refused={other.strip()} is a system of dev2, and this is dev3" in begins(other.strip())

    running = fleet.machine("dev3").current  # which came by sudo, signed by nobody
    assert f"refused={running} is signed by no key of nixherd.trustedKeys here" in begins(running)
    for words in ("id", "nixherd watch x", "nixherd look ../../etc none 0", "nixherd begin a;id b c"):
        output = fleet.on("root@dev3", f"'{words}'", check=False).output
        assert "uid=" not in output
        assert "state=none" in output or "refused=" in output or "this key may only push closures" in output, output
    assert fleet.on("dev3", "ls /pwned /nix/var/nix/gcroots/nixherd/new", check=False).output.count("No such") == 2


def _which_numbers_it_may_say(fleet: Fleet, system: str) -> None:
    before = fleet.on("dev3", f"ls {PROFILE}*; readlink {PROFILE}").output
    for words, why in (
        ("08 8 -", "must be seconds"),
        ("8 99999999999 -", "must be seconds"),
        ("8 8 1", f"generation 1 is not {system}"),
        ("8 8 01", "01 is not a generation"),
    ):
        begins = f"nixherd begin {PROTOCOL} x me boot {system} - {words} - - -"
        output = fleet.on("root@dev3", begins, check=False).output
        assert f"{why}" in output, output
    assert fleet.on("dev3", f"ls {PROFILE}*; readlink {PROFILE}").output == before


def toplevel(host: str) -> str:
    return f"nixosConfigurations.{host}.config.system.build.toplevel"


def build_request(path: str) -> bytes:
    """What an old client of `nix-store --serve --write` sends to have a path built (serve-protocol.hh, 2.7)."""

    def number(value: int) -> bytes:
        return value.to_bytes(8, "little")

    text = path.encode()
    hello, build_paths = number(0x390C9DEB) + number(0x207), number(6)
    return hello + build_paths + number(1) + number(len(text)) + text + bytes(-len(text) % 8) + number(0) * 6
