"""What is judged is what was looked at: six ways in which the guard judged by stale definitions."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from nixherd.base.errors import FleetInvalid, Refused
from nixherd.fleet import load as loading
from nixherd.fleet import world
from nixherd.fleet.world import look, look_settled
from nixherd.proxmox.hypervisor import Definitions
from tests.conftest import DEFINITIONS_NIX
from tests.properties import examples
from tests.security.tree.conftest import MakeFleet

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


@pytest.mark.nix
@examples(40)
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
        before = loading.evaluate(seen, fleet)
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
    assert loading.evaluate(look(fleet), fleet) == before


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
