"""`nixherd secrets edit`: the file is what the editor left and sops encrypted, or stays as it was."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.cli.main import run
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.places import at_the_top
from tests.nixherd.trust.secrets.repositories import administered, contents, git, recipients, sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]
Edit = Callable[..., Ended]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SOPS_EDITOR", raising=False)
    return administered(monkeypatch, tmp_path)


@pytest.fixture
def edit(fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Edit:
    """Edits with a shell script for an editor, as typed where there is no terminal."""

    def one(script: str, *words: str, at: Path | None = None) -> Ended:
        editor = fleet.parent / "editor"
        editor.write_text(f"#!/bin/sh\necho once >> {fleet.parent}/calls\n{script}\n")
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(editor))
        status = run(["--fleet", str(at or fleet), "secrets", "edit", *words])
        return Ended(status, *capfd.readouterr())

    return one


def calls(fleet: Path) -> int:
    path = fleet.parent / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def plain(fleet: Path, name: str) -> str:
    return sops(fleet, "--config", "/dev/null", "decrypt", name).stdout


def test_it_is_one_commit_and_only_what_changed_differs(edit: Edit, fleet: Path) -> None:
    before = (fleet / "secrets" / "common.yaml").read_text()
    done = edit('sed -i s/hunter2/hunter3/ "$1"', "secrets/common.yaml", "--json")
    assert done.status == 0, done.err
    assert (done.json["files"], done.json["changed"]) == (["secrets/common.yaml"], True)
    assert done.json["steps"] == ["edit secrets/common.yaml"]
    assert git(fleet, "log", "-1", "--format=%s").strip() == "secrets: edit secrets/common.yaml"
    assert git(fleet, "show", "--format=", "--name-only").split() == ["secrets/common.yaml"]
    assert git(fleet, "status", "--porcelain") == ""
    assert "hunter3" in plain(fleet, "secrets/common.yaml")
    after = (fleet / "secrets" / "common.yaml").read_text()
    names = [line for line in before.splitlines() if line.startswith("        - ENC")]
    assert names
    assert [line for line in after.splitlines() if line.startswith("        - ENC")] == names
    assert stat.S_IMODE((fleet / "secrets" / "common.yaml").stat().st_mode) == 0o644


def test_what_is_not_changed_makes_no_commit(edit: Edit, fleet: Path) -> None:
    done = edit("true", "common.yaml", "--json")
    assert (done.status, done.json["files"], done.json["changed"]) == (0, [], False)
    assert "was not changed" in edit("true", "common.yaml", "--table").out
    assert git(fleet, "log", "--format=%s").split("\n")[:-1] == ["the fleet"]


def test_a_new_file_is_made_for_whom_its_rule_names(edit: Edit, fleet: Path) -> None:
    done = edit('echo "a: 1" > "$1"', "common-new/x.yaml", "--message", "mine", "--table")
    assert done.status == 0, done.err
    assert "commit " in done.out
    assert "1 file" in done.out
    assert "1 files" not in done.out
    assert git(fleet, "log", "-1", "--format=%s").strip() == "mine"
    assert plain(fleet, "secrets/common-new/x.yaml") == "a: 1\n"
    assert sops(fleet / "secrets", "decrypt", "common-new/x.yaml", identity="doc1").stdout == "a: 1\n"


def test_without_a_commit_it_is_the_file_alone(edit: Edit, fleet: Path) -> None:
    done = edit('sed -i s/abc/xyz/ "$1"', "common.env", "--no-commit", "--json")
    assert (done.status, done.json["commit"]) == (0, None)
    assert git(fleet, "status", "--porcelain").split() == ["M", "secrets/common.env"]


def test_a_plan_starts_no_editor(edit: Edit, fleet: Path) -> None:
    before = contents(fleet)
    assert "would edit secrets/dev.yaml, rule 2" in edit("false", "dev.yaml", "--dry-run", "--table").out
    assert "would make secrets/common-2.yaml, rule 1" in edit("false", "common-2.yaml", "--dry-run", "--table").out
    assert contents(fleet) == before
    assert calls(fleet) == 0


@pytest.mark.parametrize(
    ("script", "file", "words", "status"),
    [
        ('echo "a: [" > "$1"', "common.yaml", "common.yaml: what the editor left is not valid yaml: ", 2),
        ('echo "{," > "$1"', "sub/thing.json", "sub/thing.json: what the editor left is not valid json: ", 2),
        (': > "$1"', "common.yaml", "nothing in it would be encrypted", 2),
        (': > "$1"', "ssh_key_admin", "nothing in it would be encrypted", 2),
        ('echo "{}" > "$1"', "common.yaml", "nothing in it would be encrypted", 2),
        ('echo "a_unencrypted: 1" > "$1"', "common.yaml", "nothing in it would be encrypted", 2),
        ('echo x >> "$1"; exit 3', "dev.yaml", "ended with status 3; the file stays as it was", 4),
        ('rm "$1"', "dev.yaml", "the file stays as it was", 4),
        ("kill -9 $$", "dev.yaml", "ended with status 137; the file stays as it was", 4),
    ],
)
def test_what_is_wrong_stays_out(edit: Edit, fleet: Path, script: str, file: str, words: str, status: int) -> None:
    before = contents(fleet)
    found = edit(script, file)
    lines = [line for line in found.err.splitlines() if not line.startswith("secrets: ")]
    assert len(lines) == 1, found.err
    assert words in lines[0]
    assert found.status == status, found.err
    assert calls(fleet) == 1
    assert contents(fleet) == before
    assert git(fleet, "status", "--porcelain", "--ignored") == ""


@pytest.mark.parametrize(
    ("editor", "words"),
    [("", "no editor"), ("'", "cannot be read"), ("/no/such/editor -w", "the editor (/no/such/editor) ended with")],
)
def test_no_editor(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], editor: str, words: str
) -> None:
    monkeypatch.setenv("EDITOR", editor)
    monkeypatch.setattr("nixherd.trust.secrets.editing._EDITORS", ("nosuch-editor",))
    assert run(["--fleet", str(fleet), "secrets", "edit", "dev.yaml"]) != 0
    assert words in capfd.readouterr().err


def test_a_file_with_uncommitted_changes_is_not_edited(edit: Edit, fleet: Path) -> None:
    path = fleet / "secrets" / "dev.yaml"
    path.write_text(f"{path.read_text()}# mine\n")
    found = edit("true", "dev.yaml")
    assert "secrets/dev.yaml: has changes that are not committed; commit or undo them first" in found.err
    assert (found.status, calls(fleet)) == (4, 0)


def test_a_hook_that_refuses_keeps_what_was_written_encrypted(edit: Edit, fleet: Path, tmp_path: Path) -> None:
    hook = fleet / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    hook.chmod(0o755)
    before = contents(fleet)
    found = edit('sed -i s/xyzzy/plugh/ "$1"', "dev.yaml")
    assert found.status == 4, found.err
    assert contents(fleet) == before
    [kept] = (tmp_path / "state").rglob("edited/*")
    assert str(kept) in found.err
    assert "plugh" not in kept.read_text()
    assert (
        "plugh" in plain(fleet, str(kept))
        or "plugh"
        in sops(
            fleet, "--config", "/dev/null", "decrypt", "--input-type", "yaml", "--output-type", "yaml", str(kept)
        ).stdout
    )


def test_an_editor_reads_what_is_piped_to_us(fleet: Path) -> None:
    """And where nothing is piped and nothing valid written, it does not wait for anybody."""
    program = str(Path(sys.executable).with_name("nixherd"))
    command = [program, "--fleet", str(fleet), "secrets", "edit", "dev.yaml"]
    env = {**os.environ, "EDITOR": "cp /dev/stdin"}
    done = subprocess.run(command, env=env, input="api_token: piped\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert plain(fleet, "secrets/dev.yaml") == "api_token: piped\n"
    reading, writing = os.pipe()  # which stays open
    env["EDITOR"] = "sh -c 'echo a: [ > $0'"
    done = subprocess.run(command, env=env, stdin=reading, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "is not valid yaml" in done.stderr) == (2, True), done.stderr
    os.close(reading)
    os.close(writing)


def test_plain_text_is_never_where_others_read(edit: Edit, fleet: Path) -> None:
    seen = fleet.parent / "seen"
    edit(
        f'for each in "$1" "$(dirname "$1")" "$TMPDIR"; do ls -ld "$each"; done > {seen}; echo "$1" >> {seen}',
        "dev.yaml",
    )
    *modes, where = seen.read_text().splitlines()
    assert [line[:10] for line in modes] == ["-rw-------", "drwx------", "drwx------"]
    assert where.startswith(str(fleet.parent / "state"))
    assert not Path(where).exists()


@pytest.mark.parametrize(
    ("directory", "given"),
    [
        (".", "secrets/dev.yaml"), (".", "dev.yaml"), ("secrets", "dev.yaml"), ("secrets/sub", "../dev.yaml"),
        ("hosts", "../secrets/dev.yaml"), ("/", "{fleet}/secrets/dev.yaml"), ("/", "dev.yaml"),
        ("/", "secrets/dev.yaml"), ("hosts", "{fleet}/hosts/../secrets/dev.yaml"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["beside", "top"])
def test_each_way_to_name_a_file(
    edit: Edit, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, given: str, where: str
) -> None:
    at = fleet if where == "beside" else at_the_top(tmp_path / "top")
    monkeypatch.chdir(at / directory)
    found = edit("false", given.format(fleet=at), "--dry-run", "--json", at=at)
    assert found.status == 0, found.err
    assert found.json["files"] == ["secrets/dev.yaml"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("/etc/passwd", "/etc/passwd: is outside of"),
        ("../../x.yaml", "../../x.yaml: is outside of"),
        ("nosuch.yaml", "secrets/nosuch.yaml: no creation rule matches it"),
        ("common-link.yaml", "is a symbolic link"),
        ("common-plain.yaml", "is not encrypted; `sops encrypt --in-place` it"),
    ],
)
def test_files_that_are_not_edited(
    edit: Edit, fleet: Path, monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    (fleet / "secrets" / "common-link.yaml").symlink_to("common.yaml")
    (fleet / "secrets" / "common-plain.yaml").write_text("a: 1\n")
    monkeypatch.chdir(fleet)
    found = edit("true", given)
    assert words in found.err
    assert found.status in (2, 4)
    assert calls(fleet) == 0
    assert recipients(fleet)


@pytest.mark.parametrize("regex", ["", "    path_regex: .*\n", "    path_regex: '(\\.yaml|LICENSE|lock|\\.json)$'\n"])
def test_what_only_a_rule_for_every_file_matches_is_no_secret(edit: Edit, fleet: Path, regex: str) -> None:
    """Encrypting a licence in place is no advice."""
    git(fleet, "mv", "secrets/.sops.yaml", ".sops.yaml")
    (fleet / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('admin').recipient}\n{regex}")
    for name, text in {
        "LICENSE": "Do as you like.\n",
        "flake.lock": "{}\n",
        "values.yaml": "a: 1\n",
        "x.json": "{,",
    }.items():
        (fleet / name).write_text(text)
        git(fleet, "add", "-A")
        before = contents(fleet)
        done = edit("true", name)
        if name == "x.json":
            assert "x.json: cannot be read" in done.err
        else:
            remedy = "name one below secrets, which is made if it does not exist"
            assert f"{name}: is plain text, and not a secret; {remedy}" in done.err
            assert (done.status, calls(fleet)) == (2, 0)
        assert "sops encrypt" not in done.err
        assert contents(fleet) == before
    assert edit('echo "a: 1" > "$1"', "secrets/made.yaml", "--no-commit").status == 0, "what it said"


def test_killed_in_the_editor_nothing_has_happened_and_the_next_run_works(edit: Edit, fleet: Path) -> None:
    before = contents(fleet)
    program = str(Path(sys.executable).with_name("nixherd"))
    begun, left = fleet.parent / "begun", fleet.parent / "left"
    env = {**os.environ, "EDITOR": f"sh -c 'echo $0 > {left}; mv {left} {begun}; sleep 3; echo a: 1 > $0'"}
    process = subprocess.Popen([program, "--fleet", str(fleet), "secrets", "edit", "dev.yaml"], env=env)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert contents(fleet) == before
    time.sleep(4)  # the editor goes on for a while
    assert contents(fleet) == before
    assert git(fleet, "status", "--porcelain", "--ignored") == ""
    done = edit('sed -i s/xyzzy/plugh/ "$1"', "dev.yaml", "--json")
    assert done.status == 0, done.err
    assert not Path(begun.read_text().strip()).exists()
    assert [each.name for each in fleet.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]


@pytest.mark.parametrize("name", ["secrets/.sops.yaml", "sub/.sops.yaml", ".sops.yaml"])
def test_the_rules_are_no_secret(edit: Edit, fleet: Path, name: str) -> None:
    (fleet / ".sops.yaml").write_text(f"creation_rules:\n  - age: {key('admin').recipient}\n")
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "a rule for everything")
    before = contents(fleet)
    done = edit("echo a: 1 > $1", name)
    assert done.status == 2
    assert f"{name}: is not a secret; change it in an editor" in done.err
    assert (contents(fleet), calls(fleet)) == (before, 0)


def test_without_a_terminal_an_editor_is_named(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    before = contents(fleet)
    assert run(["--fleet", str(fleet), "secrets", "edit", "secrets/common.yaml"]) == 2
    assert contents(fleet) == before
    assert "no editor: set EDITOR to a program that needs no terminal" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["sub/new.json", "sub/new.ini", "sub/new.env", "sub/new"])
def test_a_new_file_of_every_format(edit: Edit, fleet: Path, name: str) -> None:
    texts = {"sub/new.json": '{"a": "b"}', "sub/new.ini": "[a]\nb = c", "sub/new.env": "A=b", "sub/new": "a"}
    done = edit(f"printf '%s\\n' '{texts[name]}' > \"$1\"", f"secrets/{name}")
    assert done.status == 0, done.err
    assert "ENC[" in (fleet / "secrets" / name).read_text()
    assert git(fleet, "status", "--porcelain") == ""
