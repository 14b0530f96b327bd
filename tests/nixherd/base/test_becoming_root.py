"""How a plain user becomes root: command lines, run with programs of these names that do as the real ones are asked."""

import subprocess
from pathlib import Path

import pytest

from nixherd.base.becoming_root import REFUSED, Become, Root

# What each does of its options that we use; `$free` says whether it asks for a password, which is `word`.
PROGRAMS = {
    "sudo": """#!/bin/sh
while :; do case $1 in
  -n) quiet=1 ;; -S) stdin=1 ;; -k|-H|--prompt=) ;; -p) shift ;; *) break ;;
esac; shift; done
[ "$FREE" ] && exec "$@"
[ "$quiet" ] && { echo 'sudo: a password is required' >&2; exit 1; }
read -r word; [ "$word" = word ] && exec "$@"
echo 'sudo: 1 incorrect password attempt' >&2; exit 1
""",
    "doas": """#!/bin/sh
[ "$1" = -n ] || exit 9
shift
[ "$FREE" ] && exec "$@"
echo 'doas: Authentication required' >&2; exit 1
""",
    "id": "#!/bin/sh\necho ${USER_ID:-1000}\n",
}


def run(
    tmp_path: Path, script: str, stdin: str | None = None, *, has: str = "sudo doas", **env: str
) -> tuple[int, str]:
    """Status and output of a script where those programs are."""
    programs = tmp_path / "bin"
    programs.mkdir(parents=True)
    for name in ("id", *has.split()):
        (programs / name).write_text(PROGRAMS[name])
        (programs / name).chmod(0o755)
    for name in ("sh", "env", "cat", "true"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    whole = {"PATH": str(programs), **env}
    done = subprocess.run(["/bin/sh", "-c", script], input=stdin or "", capture_output=True, text=True, env=whole)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.parametrize("become", Become)
@pytest.mark.parametrize(
    ("state", "has", "env"),
    [
        ("root", "sudo doas", {"USER_ID": "0"}),
        ("none", "", {}),
        ("free", "sudo doas", {"FREE": "1"}),
        ("asks", "sudo doas", {}),
    ],
    ids=["root", "none", "free", "asks"],
)
def test_what_a_machine_says_of_it(tmp_path: Path, become: Become, state: str, has: str, env: dict[str, str]) -> None:
    """The kernel says who asks, or `id` where there is no /proc; with the effective one of its four numbers."""
    status = tmp_path / "status"
    without = become.state().replace("/proc/self/status", str(status))
    assert run(tmp_path / "without", without, has=has, **env) == (0, f"{state}\n")
    status.write_text(f"Name:\tsh\nUid:\t7\t{env.get('USER_ID', 1000)}\t7\t7\nGid:\t0\t0\t0\t0\n")
    assert run(tmp_path / "with", without, has=has, **{**env, "USER_ID": "7"}) == (0, f"{state}\n")


@pytest.mark.process
def test_a_script_is_run_and_has_its_stdin(tmp_path: Path) -> None:
    for number, (root, env) in enumerate(
        [(Root(), {"FREE": "1"}), (Root(password="word"), {}), (Root(Become.DOAS), {"FREE": "1"})]
    ):
        (place := tmp_path / str(number)).mkdir()
        assert run(place, *root.shell('cat; echo "it\'s $0"', "all of\nit\n"), **env) == (0, "all of\nit\nit's sh\n")


@pytest.mark.process
@pytest.mark.parametrize(
    ("root", "has"),
    [
        (Root(), "sudo"),
        (Root(password="wrong"), "sudo"),
        (Root(Become.DOAS), "doas"),
        (Root(), "doas"),
        (Root(Become.DOAS), "sudo"),
    ],
    ids=str,
)
def test_it_is_told_apart_from_a_command_that_fails(tmp_path: Path, root: Root, has: str) -> None:
    status, output = run(tmp_path, *root.shell("echo done", None), has=has)
    assert (status != 0, bool(REFUSED.search(output))) == (True, True), output


def test_what_a_command_says_itself_refuses_nothing() -> None:
    for output in ("error: doas.conf is missing", "sudo is not installed\n", "sh: frobnicate: not found\n"):
        assert not REFUSED.search(output)


def test_what_is_told_to_nix() -> None:
    assert Root().program("nix-store") == "sudo -n -H nix-store"
    assert Root(password="word").program("nix-store") == "sudo -S -k --prompt= -H nix-store"
    assert Root(Become.DOAS).program("nix-store") == "doas -n env HOME=/root nix-store"


@pytest.mark.parametrize(
    ("become", "state", "words"),
    [
        (Become.DOAS, "none", 'doas is not there; write become = "sudo" for it, or deploy security.doas.enable = true'),
        (Become.SUDO, "none", 'sudo is not there; write become = "doas" for it, or deploy security.sudo.enable = true'),
        (Become.SUDO, "asks", "sudo asks for a password there; give it on stdin with --data sudo_password=stdin"),
        (Become.DOAS, "asks", 'write security.doas.extraRules = [ { users = [ "al" ]; noPass = true; } ]'),
    ],
)
def test_what_to_do_where_nobody_is_root(become: Become, state: str, words: str) -> None:
    remedy = become.remedy(state, "al")
    assert words in remedy
    assert "\n" not in remedy
