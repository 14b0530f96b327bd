"""`make map`: what it counts, in small trees whose structure is known."""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.map.__main__ import main
from bench.map.figures import Figure, cycles, floors, measure, rooms
from bench.map.picture import draw
from bench.map.tree import NotInClone, Tree, of_commit, read

pytestmark = pytest.mark.process

PROJECT = '[project]\nname = "herd"\n[project.scripts]\nherd = "herd.cli.main:main"\n'
TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from herd.engine import run\nsend = 1\n"
FILES = {
    "pyproject.toml": PROJECT,
    "inventory.py": "from herd.groups import every\n",
    "herd/__init__.py": "",
    "herd/errors.py": "class Fault(Exception): ...\n",
    "herd/groups.py": "every = ()\n",
    "herd/cli/__init__.py": '"""Commands."""\n',
    "herd/cli/main.py": "LAZY = 'herd.cli.lazy'\ndef main():\n    from herd.engine import run\n",
    "herd/cli/lazy.py": "from herd import errors\n",
    "herd/engine/__init__.py": "",
    "herd/engine/run.py": "from herd.engine import steps\nfrom herd import errors\n",
    "herd/engine/steps.py": "from herd.api.client import send\n",
    "herd/engine/forgotten.py": "x = 1\n",
    "herd/api/__init__.py": "",
    "herd/api/client.py": TYPING,
    "operations/__init__.py": "",
    "operations/deploy.py": "from herd.engine import run\n",
    "operations/long.py": "x = 1\n" * 401,
    "deploys/deploy.py": "from operations import deploy\n",
}


def plant(directory: Path) -> Path:
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    return plant(tmp_path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return read(plant(tmp_path_factory.mktemp("tree")))


@pytest.fixture(scope="module")
def figures(tree: Tree) -> dict[str, Figure]:
    return {figure.title: figure for figure in measure(tree)}


def test_rooms_are_packages_and_the_modules_below_the_root(tree: Tree) -> None:
    library = rooms(tree, ["herd"])
    assert library.names == ("herd", "herd.api", "herd.cli", "herd.engine", "herd.errors", "herd.groups")
    assert library.arrows == {
        ("herd.cli", "herd.engine"): 1,
        ("herd.cli", "herd.errors"): 1,
        ("herd.engine", "herd.api"): 1,
        ("herd.engine", "herd.errors"): 1,
        ("herd.api", "herd.engine"): 1,
    }


def test_the_roots_modules_are_one_room_in_the_other_reading(tree: Tree) -> None:
    whole = rooms(tree, ["herd"], root_is_one=True)
    assert whole.names == ("herd", "herd.api", "herd.cli", "herd.engine")
    assert whole.arrows["herd.engine", "herd"] == 1


def test_rooms_of_a_cycle_share_a_floor_and_are_named(tree: Tree) -> None:
    library = rooms(tree, ["herd"])
    assert library.cycles == [["herd.api", "herd.engine"]]
    assert library.floors == [["herd", "herd.errors", "herd.groups"], ["herd.api", "herd.engine"], ["herd.cli"]]


def test_a_cycle_that_only_type_checkers_see_is_counted_and_said(figures: dict[str, Figure]) -> None:
    figure = figures["cycles of modules"]
    assert figure.value == 1
    assert figure.names == ("herd.api.client, herd.engine.run, herd.engine.steps (for type checkers only)",)
    assert not figure.is_kept


def test_one_importer_counts_operations_and_not_deploys(figures: dict[str, Figure]) -> None:
    names = [name.split()[0] for name in figures["modules with one importer"].names]
    assert names == ["herd.api.client", "herd.engine.steps"]
    assert "herd.engine.steps (1 lines) <- herd.engine.run (2)" in figures["modules with one importer"].names


def test_who_is_named_by_a_script_a_string_or_the_project_is_not_forgotten(figures: dict[str, Figure]) -> None:
    assert figures["modules that nobody imports"].names == ("herd.engine.forgotten",)


def test_packages_of_one_file_and_long_files(figures: dict[str, Figure]) -> None:
    assert figures["packages of one file"].names == ("deploys", "herd.api")
    assert figures["files over 400 lines, product and lab"].names == ("operations/long.py (401)",)


def test_code_in_a_packages_init_is_a_file_and_so_is_what_is_not_python(planted: Path) -> None:
    (planted / "herd/api/__init__.py").write_text("VERSION = 1\n")
    (planted / "deploys/machine.sh").write_text("true\n")
    (figure,) = (each for each in measure(read(planted)) if each.title == "packages of one file")
    assert figure.names == ()


def test_source_lines_are_those_of_all_packages(figures: dict[str, Figure]) -> None:
    assert figures["SLOC (radon raw)"].value == 1 + 1 + 3 + 1 + 2 + 1 + 1 + 4 + 1 + 401 + 1


def test_floors_of_a_chain_and_of_nothing() -> None:
    assert floors("abc", [("a", "b"), ("b", "c"), ("a", "c")]) == [["c"], ["b"], ["a"]]
    assert floors("", []) == []


@pytest.mark.parametrize("edges", [[("a", "b")], [("a", "b"), ("b", "c"), ("a", "c")]])
def test_no_cycle(edges: list[tuple[str, str]]) -> None:
    assert cycles("abc", edges) == []


def test_two_cycles_that_an_arrow_joins_stay_two() -> None:
    edges = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")]
    assert cycles("abcd", edges) == [["a", "b"], ["c", "d"]]


def test_the_picture_has_a_box_a_room_and_a_curve_an_arrow(tree: Tree) -> None:
    library = rooms(tree, ["herd"])
    picture = ElementTree.fromstring(draw(library, "herd <here>", {name: name for name in library.names}))
    svg = "{http://www.w3.org/2000/svg}"
    curves = picture.findall(f"{svg}path")
    assert {text.text for text in picture.findall(f"{svg}text")} == {"herd <here>", *library.names}
    assert len(curves) == len(library.arrows)
    heads = {
        curve[0].text: circle.get("cy") for curve, circle in zip(curves, picture.findall(f"{svg}circle"), strict=True)
    }
    assert "herd.cli imports herd.engine (1)" in heads


def test_the_command_prints_draws_and_fails_only_when_it_checks(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(planted)
    assert main([]) == 0
    printed = capsys.readouterr()
    assert "e8e5084 is not in this clone" in printed.out
    assert "floor 2\n  api -> engine 1\n  engine -> api 1, errors 1\n" in printed.out
    assert printed.err == ""
    assert (planted / "build/map/here.svg").read_text().startswith("<svg")
    assert main(["--check"]) == 1
    assert "map: cycles of rooms: 1; the bound is 0\n" in capsys.readouterr().err


def test_it_succeeds_within_all_bounds(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (planted / "herd/api/client.py").write_text("send = 1\n")
    (planted / "herd/api/__init__.py").write_text("VERSION = 1\n")
    (planted / "deploys/machine.sh").write_text("true\n")
    (planted / "operations/long.py").write_text("x = 1\n")
    monkeypatch.chdir(planted)
    assert main(["--check"]) == 0


def test_an_earlier_commit_is_measured_by_its_own_files(planted: Path) -> None:
    git = ["git", "-C", str(planted), "-c", "user.name=x", "-c", "user.email=x@invalid"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    (planted / "herd/engine/steps.py").write_text("")
    with of_commit(planted, "HEAD") as directory:
        assert ("herd.engine.steps", "herd.api.client") in read(directory).imports
    with pytest.raises(NotInClone), of_commit(planted, "e8e5084"):
        pass


def test_the_issues_figures_are_those_of_its_commit() -> None:
    """Skipped in a clone without that commit."""
    try:
        with of_commit(Path(__file__).parents[2], "e8e5084") as directory:
            values = {figure.title: figure.value for figure in measure(read(directory))}
    except NotInClone:
        pytest.skip("e8e5084 is not in this clone")
    assert values["floors"] == 10
    assert values["arrows between rooms"] == 189
    assert values["arrows between the library's modules"] == 519
    assert values["modules with one importer"] == 44
    assert values["SLOC (radon raw)"] == 14_272
