"""The look at a machine's secrets, run by a real shell over trees as sops-nix makes them, and what follows from it."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import EndUnknown, FleetError
from nixherd.nix.declared import Declared, DeclaredSecret, DeclaredTemplate
from nixherd.trust.secrets.proof import (
    BEFORE_USERS,
    SYSTEM,
    Place,
    Proven,
    Verdict,
    judge,
    parse,
    places,
    script,
    unknown,
)

ME = str(os.getuid())
SHELLS = [shell for shell in ("sh", "bash", "dash", "busybox") if shutil.which(shell)]


class Machine:
    """`/run/secrets` and so on below `root`, in generations as sops-nix makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = os.environ["PATH"]
        self.runtime = root / "run/user/me"

    def file(self, name: str, text: str = "hush", *, number: int = 7, mode: int = 0o400, base: str = SYSTEM) -> Path:
        path = Path(f"{self.root}{base}.d/{number}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        self.current(number, base)
        return path

    def current(self, number: int, base: str = SYSTEM) -> None:
        link = Path(f"{self.root}{base}")
        link.unlink(missing_ok=True)
        link.symlink_to(f"{self.root}{base}.d/{number}")

    def link(self, path: str, target: str) -> Path:
        link = Path(f"{self.root}{path}")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"{self.root}{target}")
        return link

    def place(self, name: str, path: str | None = None, **values: object) -> Place:
        directory = f"{self.root}{values.pop('base', SYSTEM)}"
        secret = DeclaredSecret(name, "", "secrets/x.yaml", "yaml", name)
        place = Place(
            name, directory, f"{self.root}{path}" if path else f"{directory}/{name}", 0o400, ME, ME, None, secret
        )
        return replace(place, **values)  # type: ignore[arg-type]

    def answer(self, *looked_at: Place, shell: str = "sh", as_nobody: bool = False) -> list[str]:
        argv = [shell, "sh"] if shell == "busybox" else [shell]
        dropped = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if as_nobody else []
        env = {"PATH": self.path, "XDG_RUNTIME_DIR": str(self.runtime)}
        done = subprocess.run(
            [*dropped, *argv, "-c", script(looked_at, "ab12")], env=env, capture_output=True, text=True, timeout=20
        )
        return done.stdout.splitlines()

    def look(self, *looked_at: Place, **how: object) -> list[Proven]:
        return list(judge(looked_at, parse(self.answer(*looked_at, **how), looked_at)))  # type: ignore[arg-type]

    def one(self, place: Place, **how: object) -> tuple[Verdict, str]:
        [proven] = self.look(place, **how)
        return proven.verdict, proven.why.replace(str(self.root), "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_as_declared_is_decrypted(machine: Machine, shell: str) -> None:
    machine.file("token", "xyzzy")
    machine.file("deep/er/pass word", "hunter2", mode=0o440)
    machine.file("rendered/conf", "t=xyzzy", mode=0o660)
    machine.file("hash", base=BEFORE_USERS)
    machine.link("/etc/deep/it's", f"{SYSTEM}/token")
    template = machine.place("rendered/conf", "/etc/conf", mode=0o660, secret=None)
    machine.link("/etc/conf", f"{SYSTEM}/rendered/conf")
    looked_at = (
        machine.place("token", "/etc/deep/it's"),
        machine.place("deep/er/pass word", mode=0o440),
        machine.place("hash", base=BEFORE_USERS),
        template,
    )
    lines = machine.answer(*looked_at, shell=shell)
    found = judge(looked_at, parse(lines, looked_at))
    assert [each.verdict for each in found] == [Verdict.DECRYPTED] * 4, [each.why for each in found]
    assert found[0].entry.hash == hashlib.sha256(b"ab12xyzzy").hexdigest()
    assert not any("xyzzy" in line or "hunter2" in line for line in lines)


def test_an_empty_secret_is_decrypted_and_that_it_is_empty_is_noted(machine: Machine) -> None:
    machine.file("token", "")
    [proven] = machine.look(machine.place("token"))
    assert (proven.verdict, proven.notes) == (Verdict.DECRYPTED, ("empty, as its file says",))
    assert proven.entry.hash == hashlib.sha256(b"ab12").hexdigest()


def test_what_a_umask_leaves_of_a_mode_is_no_difference(machine: Machine) -> None:
    """main.go: writeSecrets creates with the mode, under the activation's umask; writeTemplate sets it."""
    machine.file("token", mode=0o640)
    [proven] = machine.look(machine.place("token", mode=0o660))
    assert proven.verdict is Verdict.DECRYPTED
    assert proven.notes == ("declared 0660, of which sops-nix's umask leaves this",)
    template = machine.place("token", mode=0o660, secret=None)
    assert machine.one(template) == (Verdict.DIFFERS, "its mode is 0640, declared 0660")


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"mode": 0o440}, "its mode is 0400, declared 0440"),
        ({"owner": "nobodys"}, f"its owner is {os.popen('id -un').read().strip()}, declared nobodys"),
        ({"group": "4711"}, f"its group is {os.popen('id -gn').read().strip()}, declared 4711"),
    ],
)
def test_differences_are_said(machine: Machine, declared: dict[str, Any], why: str) -> None:
    machine.file("token")
    assert machine.one(machine.place("token", **declared)) == (Verdict.DIFFERS, why)


def test_what_is_missing(machine: Machine) -> None:
    machine.file("token")
    place = machine.place("token")
    assert machine.one(place)[0] is Verdict.DECRYPTED
    token, run = Path(f"{machine.root}{SYSTEM}.d/7/token"), Path(f"{machine.root}{SYSTEM}")
    token.unlink()
    assert machine.one(place) == (Verdict.MISSING, "it is not in /run/secrets.d/7")
    token.mkdir()
    assert machine.one(place) == (Verdict.MISSING, "/run/secrets/token is a directory there")
    token.rmdir()
    token.symlink_to("/etc/hostname")
    assert machine.one(place) == (Verdict.MISSING, "/run/secrets/token is a symbolic link there")
    machine.current(8)
    assert machine.one(place)[0] is Verdict.MISSING
    run.unlink()
    assert machine.one(place) == (Verdict.MISSING, "/run/secrets does not exist")
    run.mkdir()
    (run / "token").write_text("planted")
    assert machine.one(place) == (Verdict.MISSING, "/run/secrets is a directory there, not sops-nix's link")
    shutil.rmtree(machine.root / "run")
    assert machine.one(place) == (Verdict.MISSING, "/run/secrets does not exist")


def test_what_shadows_the_path_of_a_secret(machine: Machine) -> None:
    machine.file("token")
    machine.file("token", number=6)
    machine.current(7)
    place, path = machine.place("token", "/etc/token"), machine.root / "etc/token"
    assert machine.one(place) == (Verdict.SHADOWED, "/etc/token does not exist")
    path.parent.mkdir()
    path.write_text("hush")
    assert machine.one(place) == (Verdict.SHADOWED, "/etc/token is a file there, not sops-nix's link")
    path.unlink()
    path.mkdir()
    assert machine.one(place) == (Verdict.SHADOWED, "/etc/token is a directory there, not sops-nix's link")
    path.rmdir()
    machine.link("/etc/token", f"{SYSTEM}.d/6/token")
    assert machine.one(place) == (Verdict.SHADOWED, "/etc/token leads to /run/secrets.d/6/token there")
    path.unlink()
    path.symlink_to("/nowhere/at/all")
    assert machine.one(place)[0] is Verdict.SHADOWED
    path.unlink()
    machine.link("/etc/token", f"{SYSTEM}/token")
    assert machine.one(place)[0] is Verdict.DECRYPTED


# A home


def home(machine: Machine, user: str, path: str = "%r/token") -> Place:
    secret = DeclaredSecret("token", "", "secrets/x.yaml", "yaml", "token", user=user)
    directory = f"{machine.root}/home/.config/sops-nix/secrets"
    return Place("token", directory, path, 0o400, "", "", user, secret)


def filled(machine: Machine, number: int = 3) -> None:
    generation = machine.runtime / f"secrets.d/{number}"
    generation.mkdir(parents=True)
    (generation / "token").write_text("hush")
    (generation / "token").chmod(0o400)
    link = machine.root / "home/.config/sops-nix/secrets"
    link.parent.mkdir(parents=True)
    link.symlink_to(generation)
    (machine.runtime / "token").symlink_to(link / "token")


def test_a_home_s_secrets_are_looked_at_by_its_user(machine: Machine) -> None:
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    filled(machine)
    assert machine.one(home(machine, user)) == (Verdict.DECRYPTED, "")
    shutil.rmtree(machine.runtime)
    verdict, why = machine.one(home(machine, user))
    assert (verdict, why.split(":")[0]) == (Verdict.LATER, f"nobody is logged in as {user} there")
    machine.runtime.mkdir()
    assert machine.one(home(machine, user))[0] is Verdict.MISSING


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")
def test_a_home_of_somebody_else_is_not_known(machine: Machine) -> None:
    machine.root.chmod(0o755)
    verdict, why = machine.one(home(machine, "root"), as_nobody=True)
    assert (verdict, why) == (Verdict.UNKNOWN, "root's home: the way in is for nobody")
    verdict, why = machine.one(home(machine, "no-such-user"))
    assert verdict is Verdict.UNKNOWN
    assert "no-such-user" in why


# Unknown is never "no"


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")
def test_what_may_not_be_seen_is_not_known(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    for directory in (machine.root, *machine.root.parents):
        if directory.is_relative_to(tmp_path_factory.getbasetemp().parent):
            directory.chmod(directory.stat().st_mode | 0o055)
    machine.file("token")
    for path in (machine.root / "run", machine.root / "run/secrets.d", machine.root / "run/secrets.d/7"):
        path.chmod(0o751)
    verdict, why = machine.one(machine.place("token"), as_nobody=True)
    assert verdict is Verdict.UNKNOWN
    assert "Permission denied" in why or "cannot open" in why
    (machine.root / "run/secrets.d").chmod(0o700)
    verdict, why = machine.one(machine.place("token"), as_nobody=True)
    assert (verdict, "Permission denied" in why) == (Verdict.UNKNOWN, True)


def test_a_machine_without_the_program_is_not_known(machine: Machine, tmp_path: Path) -> None:
    machine.file("token")
    tool = tmp_path / "bin/stat"
    tool.parent.mkdir()
    for text in ("#!/bin/sh\nexit 1\n", "#!/bin/sh\necho what\n"):
        tool.write_text(text)
        tool.chmod(0o755)
        machine.path = f"{tool.parent}:{os.environ['PATH']}"
        assert machine.one(machine.place("token"))[0] is Verdict.UNKNOWN


def test_an_answer_that_is_cut_off_is_not_one(machine: Machine) -> None:
    machine.file("token")
    place = machine.place("token")
    lines = ["Welcome to the machine", "0.is=absent", *machine.answer(place)]
    assert judge((place,), parse(lines, (place,)))[0].verdict is Verdict.DECRYPTED
    begin = lines.index("nixherd-secrets")
    for count in range(len(lines)):
        with pytest.raises(FleetError, match="it did not answer" if count <= begin else "its answer was cut off"):
            parse(lines[:count], (place,))
    for count in range(begin + 1, len(lines) - 1):  # a line of it is lost
        left = [*lines[:count], *lines[count + 1 :]]
        assert judge((place,), parse(left, (place,)))[0].verdict is not Verdict.DECRYPTED
        if lines[count].partition("=")[0].endswith("is"):
            assert judge((place,), parse(left, (place,)))[0].verdict is Verdict.UNKNOWN
    with pytest.raises(FleetError, match="not NAME=VALUE"):
        parse([*lines[:-1], "Broadcast message from root", lines[-1]], (place,))


def test_a_salt_is_hexadecimal() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        script((), "$(reboot)")


# What is declared


def test_places_are_what_sops_nix_makes_of_a_declaration() -> None:
    declared = Declared(
        "dev",
        (
            DeclaredSecret("token", "/run/secrets/token", "secrets/a.yaml", "yaml", "token", owner="web", group="web"),
            DeclaredSecret("hash", "/run/secrets-for-users/hash", "secrets/a.yaml", "yaml", "hash", True, owner="web"),
            DeclaredSecret(
                "mail", "/h/.config/sops-nix/secrets/mail", "b", "yaml", "mail", owner="", group="", user="a"
            ),
        ),
        (DeclaredTemplate("conf", "/etc/conf", "0644"),),
        symlinks={"a": "/h/.config/sops-nix/secrets"},
    )
    found = places(declared)
    assert [(each.entry, each.path, f"{each.mode:o}", each.owner) for each in found] == [
        ("/run/secrets/token", "/run/secrets/token", "400", "web"),
        ("/run/secrets-for-users/hash", "/run/secrets-for-users/hash", "400", "0"),
        ("/h/.config/sops-nix/secrets/mail", "/h/.config/sops-nix/secrets/mail", "400", ""),
        ("/run/secrets/rendered/conf", "/etc/conf", "644", "0"),
    ]
    with pytest.raises(EndUnknown, match="where the secrets of a's home are is not known"):
        places(replace(declared, symlinks={}))
    with pytest.raises(FleetError, match="u=r is not a mode"):
        places(replace(declared, templates=(DeclaredTemplate("conf", "/etc/conf", "u=r"),)))
    assert {each.why for each in unknown(found, "no answer")} == {"no answer"}
