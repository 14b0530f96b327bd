"""What a fleet's files may take while they are read, and what real fleets do."""

import os
import resource
import time
from pathlib import Path

import pytest

from nixherd.base.errors import DeadlineExceeded, FleetError, FleetInvalid
from nixherd.base.process import Limits
from nixherd.fleet import load as loading
from nixherd.fleet.load import load_fleet, require_exactly
from nixherd.nix.flakes import lock_flake
from tests.conftest import HOSTS_NIX
from tests.security.tree.conftest import MakeFleet, note_of, noted, say

# What a file may take


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("let f = n: f (n + 1) + 1; in f 1", r"hosts\.nix:7:\d+: stack overflow"),
        ("let a = b; b = a; in a", r"hosts\.nix:7:\d+: infinite recursion"),
        ("builtins.length (builtins.genList (n: n) 2000000000)", r"take more than .* to evaluate; make them smaller"),
        ("let f = n: if n == 0 then [ 1 ] else let a = f (n - 1); in [ a a ]; in f 40", "take more than .* to eval"),
        ("let f = n: if n == 0 then 1 else [ (f (n - 1)) ]; in f 3000", "hold values too deep in one another"),
        ("let f = n: builtins.trace \"x\" (f (n + 1)); in f 1", "take more than|stack overflow"),
        ('builtins.foldl\' (a: n: builtins.trace "a long line, again and again" n) 0 (builtins.genList (n: n) 999999)',
         "take more than .* to evaluate"),
        ("builtins.toJSON (builtins.genList (n: \"long enough\") 999999)", "take more than .* to evaluate"),
    ],
)  # fmt: skip
def test_what_would_not_end_ends(repository: Path, monkeypatch: pytest.MonkeyPatch, expression: str, says: str) -> None:
    monkeypatch.setattr(loading, "_LIMITS", Limits(memory=300 << 20, output=4 << 20))
    monkeypatch.setenv("GC_INITIAL_HEAP_SIZE", "33554432")  # else Nix takes more to begin with
    say(repository, expression)
    began = time.monotonic()
    with pytest.raises(FleetInvalid, match=says):
        load_fleet(repository)
    assert time.monotonic() - began < 30


def test_what_takes_too_long_is_stopped(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_TIMEOUT", 0.5)
    say(repository, "builtins.foldl' (a: b: a + b) 0 (builtins.genList (n: builtins.foldl' (a: b: a + b) 0 "
        "(builtins.genList (n: n) 100000)) 100000)")  # fmt: skip
    with pytest.raises(DeadlineExceeded, match=rf"^{repository}: .* not evaluated after 0\.5 s"):
        load_fleet(repository)


def test_a_pipe_in_the_tree_is_not_waited_for(repository: Path) -> None:
    os.mkfifo(repository / "pipe")
    say(repository, "builtins.readFile ./pipe")
    with pytest.raises(
        FleetInvalid, match=r"hosts\.nix:7:\d+: builtins\.readFile: pipe is neither file nor directory; "
    ):
        load_fleet(repository)


@pytest.mark.parametrize(
    "expression", ["builtins.fromJSON (builtins.readFile ./gone.json)", "import ./gone.nix", "builtins.readDir ./a/b"]
)
def test_a_file_that_is_not_there_is_not_said_to_be_elsewhere(repository: Path, expression: str) -> None:
    """Beside what is left out (`.git`) restrict-eval forbids it instead."""
    say(repository, expression)
    with pytest.raises(FleetInvalid, match=r"^hosts\.nix:7:\d+: .*(does not exist|No such file)") as caught:
        load_fleet(repository)
    assert "outside" not in str(caught.value)


@pytest.mark.parametrize("text", [b'"caf\xe9"', b'"\xff\xfe"', b'{ "\xe9v" = 1; }'])
def test_a_string_that_is_no_utf8_is_said_to_be_that(repository: Path, text: bytes) -> None:
    (repository / "latin.nix").write_bytes(text)
    say(repository, "import ./latin.nix")
    with pytest.raises(FleetInvalid, match=r"hold a string that is not UTF-8; save them"):
        load_fleet(repository)


def test_more_files_than_can_be_named_are_an_error_with_its_place(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beside what is left out are told to Nix one by one, and a command line has an end."""
    (repository / "photos").mkdir()
    for number in range(2000):
        (repository / "photos" / f"{number:0200}").touch()
    assert load_fleet(repository).hosts
    (repository / "photos" / "result").symlink_to("/nix/store/gone")
    monkeypatch.setenv("FILLER", "x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, hard))  # a quarter of it is what a command line may take
    try:
        with pytest.raises(
            FleetInvalid, match=rf"{repository}/photos holds 2000 files beside .*/photos/result, too many"
        ):
            load_fleet(repository)
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def test_names_and_links_of_any_kind_do_not_stop_it(repository: Path) -> None:
    top = os.fsencode(repository)
    for raw in (b"\xff.nix", b"sub/\xfe.txt", b"sub/a b\n'${c}\".nix", b"sub/=a=b"):
        path = top + b"/" + raw
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "w") as file:  # noqa: PTH123
            file.write("1")
    os.makedirs(top + b"/sub/\xfd/.cache")  # noqa: PTH103
    os.symlink(b"\xfe.txt", top + b"/sub/link")
    links = {"itself": "itself", "one": "two", "two": "one", "nowhere": "missing", "above": ".", "out": "/etc"}
    for name, target in links.items():
        (repository / name).symlink_to(target)
    assert load_fleet(repository).hosts
    say(repository, "import ./sub/link")
    assert note_of(repository) == 1
    say(repository, "builtins.pathExists ./above/above/hosts.nix")
    assert note_of(repository) is True
    for name, why in (("itself", "nowhere"), ("one", "nowhere"), ("nowhere", "nowhere"), ("out", "out of the fleet")):
        say(repository, f"builtins.pathExists ./{name}")
        with pytest.raises(FleetInvalid, match=rf"hosts\.nix:7:\d+: .*{name} leads {why}"):
            load_fleet(repository)


# What fleets do


def test_a_fleet_uses_the_files_of_its_repository(make_fleet: MakeFleet) -> None:
    """In a subdirectory, with a library beside it, links, directories, generated lists, and JSON."""
    directory = make_fleet(name="repository/fleet")
    top = directory.parent
    (top / ".git").write_text("gitdir: /elsewhere/worktrees/a")
    (top / "lib" / "deep").mkdir(parents=True)
    (top / "lib" / "default.nix").write_text("{ twice = x: x + x; names = import ./deep; inherit (import ./a.nix) a; }")
    (top / "lib" / "deep" / "default.nix").write_text("builtins.attrNames (builtins.readDir ../../fleet/hosts)")
    (top / "lib" / "a.nix").write_text("let builtins = { a = 7; }; in { inherit (builtins) a; }")
    (top / "lib" / "data.json").write_text('{ "port": 22 }')
    (top / "lib" / "scoped.nix").write_text("given + import ./one.nix")
    (top / "lib" / "one.nix").write_text("1")
    (directory / "shared").symlink_to("../lib")
    (directory / "one.nix").symlink_to(top / "lib" / "one.nix")
    (top / "result").symlink_to("/nix/store/whatever")
    works = {
        "(import ../lib).twice 4": 8,
        "(import ../lib).names": ["caddy", "dev", "proxmox-vm"],
        "(import ./shared).a": 7,
        "import ./one.nix": 1,
        "builtins.readFile ./one.nix": "1",
        "builtins.pathExists ./shared/deep": True,
        "builtins.pathExists ./shared/none": False,
        "builtins.pathExists ./none/at/all": False,
        "(builtins.fromJSON (builtins.readFile ../lib/data.json)).port": 22,
        "builtins.scopedImport { given = 2; } ../lib/scoped.nix": 3,
        "map import [ ../lib/one.nix ./one.nix ]": [1, 1],
        'import (./. + "/one.nix")': 1,
        'import (toString ./. + "/../lib/one.nix")': 1,
        "(builtins.tryEval (throw \"x\")).success": False,
        "builtins.functionArgs ({ a, b ? 1 }: a)": {"a": False, "b": True},
        "let path = 5; readFile = x: x; set = { getEnv = 3; path = 6; }; in [ path (readFile 1) (with set; getEnv) ]":
            [5, 1, 3],
        "with { path = 6; readDir = 4; getEnv = 1; }; [ path readDir getEnv ]": [6, 4, 1],
        "builtins.isFunction import": True,
        "builtins ? getEnv": True,
        "builtins.baseNameOf (builtins.path { path = ./shared; name = \"src\"; })": None,
        "builtins.trace \"seen\" 1": 1,
        "3 - 1 < 5 && -1 < 0": True,
        '"${../lib}" != ""': True,
        '"${./..}" != ""': True,
        "derivation { name = \"a\"; system = \"b\"; builder = \"c\"; }": "<derivation>",
    }  # fmt: skip
    for expression, value in works.items():
        say(directory, expression)
        found = note_of(directory)
        assert value is None or found == value, expression
    for where in ("readDir ./..", "readDir ../."):
        say(directory, f"builtins.attrNames (builtins.{where})")
        assert note_of(directory) == ["fleet", "lib"]  # neither .git nor what leads out


def test_paths_are_the_operators_and_may_be_elsewhere(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """A link to the fleet is its name for the operator; a path that is only named is not read."""
    directory = make_fleet(noted(f"[ {tmp_path}/ca.pem ./none.nix ./hosts.nix ]"))
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "link").symlink_to(directory)
    fleet = load_fleet(tmp_path / "link")
    assert fleet.path == str(tmp_path / "link")
    assert fleet.hosts["dev"].configuration_file == f"{tmp_path}/link/hosts/dev/configuration.nix"
    noted_paths = fleet.hosts["dev"].extra["note"]
    assert noted_paths == [f"{tmp_path}/ca.pem", f"{tmp_path}/link/none.nix", f"{tmp_path}/link/hosts.nix"]
    assert [path.exists for path in noted_paths] == [True, False, True]


def test_an_error_beside_the_fleet_says_where(make_fleet: MakeFleet) -> None:
    directory = make_fleet(noted("import ../lib/wrong.nix"), name="repository/fleet")
    (directory.parent / ".git").mkdir()
    (directory.parent / "lib").mkdir()
    (directory.parent / "lib" / "wrong.nix").write_text("{\n  a = nothing;\n}\n")
    with pytest.raises(FleetInvalid, match=r"^\.\./lib/wrong\.nix:2:7: undefined variable 'nothing'; correct the Nix"):
        load_fleet(directory)


def test_a_library_is_evaluated_once_however_often_it_is_imported(repository: Path) -> None:
    for number in range(24):
        again = f"import ./l{number + 1}.nix + import ./l{number + 1}.nix" if number < 23 else "1"
        (repository / f"l{number}.nix").write_text(again)
    say(repository, "import ./l0.nix")
    began = time.monotonic()
    assert note_of(repository) == 2**23
    assert time.monotonic() - began < 30


@pytest.mark.nix
def test_a_flake_in_a_directory_of_its_repository(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, text in (("fleet/flake.nix", "{ outputs = _: { }; }"), ("lib.nix", "3")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (source / "fleet" / "hosts.nix").write_text(HOSTS_NIX.replace(*noted("import ../lib.nix")).replace("./hosts", "."))
    for host in ("dev", "proxmox-vm", "caddy"):
        (source / "fleet" / host).mkdir()
        for file in ("configuration.nix", "home.nix"):
            (source / "fleet" / host / file).write_text("{ }")
    assert note_of(lock_flake(f"path:{source}?dir=fleet").path) == 3
    (source / "away").symlink_to(tmp_path)
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    with pytest.raises(FleetError):
        lock_flake(f"path:{source}?dir=away")


@pytest.mark.nix
def test_a_flake_that_names_a_directory_of_ours_as_its_input_is_refused(tmp_path: Path) -> None:
    """Unlocked, it would be copied to the Nix store, for the flake's own evaluation to read and for a build to send."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "token").write_text("s3cr3t")
    source = tmp_path / "source"
    source.mkdir()
    (source / "flake.nix").write_text(
        f'{{ inputs.private = {{ url = "path:{tmp_path}/private"; flake = false; }}; outputs = _: {{ }}; }}'
    )
    (source / "hosts.nix").write_text("{ }")
    with pytest.raises(FleetError, match=r"its flake\.lock is missing or lacks an input; `nix flake lock` there"):
        lock_flake(f"path:{source}")


def test_an_edit_is_seen_with_all_of_the_repository(make_fleet: MakeFleet, tmp_path: Path) -> None:
    directory = make_fleet(noted("import ../lib"), name="repository/fleet")
    (directory.parent / ".git").mkdir()
    (directory.parent / "lib").mkdir()
    (directory.parent / "lib" / "default.nix").write_text("[ ./x.nix (import ../fleet/more.nix) ]")
    (directory / "more.nix").write_text("1")
    (directory / "result").symlink_to("/nix/store/none")
    text = (directory / "hosts.nix").read_bytes()
    edited = {"hosts.nix": text.replace(b'"placeholder"', b'"another"')}
    expected: dict[tuple[str, ...], str] = {("hosts.nix", "dev", "publicKey"): "another"}
    require_exactly(directory, edited, expected, tmp_path / "scratch")
    with pytest.raises(FleetError, match=r"dev\.publicKey"):
        require_exactly(directory, {"hosts.nix": text}, expected, tmp_path / "scratch2")
