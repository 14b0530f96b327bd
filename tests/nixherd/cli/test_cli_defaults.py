"""What nobody said on the command line: it overrules neither hosts.nix nor group data, and is never passed on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from nixherd.base.files import fleet_root
from nixherd.base.process import Completed
from nixherd.cli import run_pyinfra
from nixherd.cli.front import Front
from nixherd.cli.main import cli, run
from nixherd.fleet import place
from nixherd.fleet.schema import FIELDS, OPERATORS, Place
from tests.nixherd.cli.test_cli_deploying import FakePyinfra, begun, end, pyinfra  # noqa: F401  (fixture)

UNSET = click.Option(["--without-default"]).default  # click's own word for it
STANDING = {"secrets_directory", "docs_file", "docs_template", "age_identity", "commit", "boot_deadline"}
DEPLOYS = {field.name for field in FIELDS[Place.HOST] if field.deploys} | {*OPERATORS} | STANDING | {"task_deadline"}


def commands(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield name, command
            yield from ((f"{name} {below}", each) for below, each in commands(command, ctx))
        else:
            yield name, command


def test_no_option_that_the_fleets_files_may_say_has_a_default() -> None:
    seen = set()
    with click.Context(cli, obj=Front("fleet")) as ctx:
        for name, command in commands(cli, ctx):
            for option in command.params:
                if option.name in DEPLOYS:
                    seen.add(option.name)
                    assert option.get_default(ctx) in (None, UNSET), f"{name} --{option.name}"
    assert {"goal", "reboot", "soak", "build_on", "allow_dirty", "no_check", "commit", "docs_file"} <= seen


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (["deploy"], set()),
        (["plan"], set()),
        (["reboot"], set()),
        (["deploy", "--goal", "switch"], {"goal=switch"}),
        (["deploy", "--reboot"], {"reboot=true"}),
        (["deploy", "--no-reboot"], {"reboot=false"}),
        (["deploy", "--soak", "0", "--allow-dirty"], {"soak=0", "allow_dirty=true"}),
        (["reboot", "--force"], {"force=true"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "data",
)
def test_pyinfra_is_told_what_was_said_and_no_more(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
    words: list[str],
    data: set[str],
) -> None:
    fake = pyinfra(begun(tmp_path, "a"), end("a", "deployed"))
    run([*words, "--json"])
    assert {pair for pair in fake.data if not pair.startswith("journal=")} == data


def test_what_group_data_says_holds_where_nothing_was_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place, "PROJECT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROXMOX_TOKEN_FILE", raising=False)
    front = Front.of_environment()
    assert (front.timeout, front.token_path.name) == (3600.0, "proxmox-token")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text("proxmox_token_file = '/said/token'\ntask_deadline = 7\n")
    front = Front.of_environment()
    assert (front.timeout, str(front.token_path)) == (7.0, "/said/token")
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", "/from/environment")
    assert str(Front.of_environment().token_path) == "/from/environment"


# The fleet's directory, however it is written


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "a fleet" / "below"
    directory.mkdir(parents=True)
    (tmp_path / "link").symlink_to(directory)
    (tmp_path / "to repository").symlink_to(directory.parent)
    monkeypatch.chdir(directory.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    return directory


FORMS = [
    "{0}",
    "{0}/",
    "{1}/link",
    "{1}/link/",
    "{1}/to repository/below",
    "~/link",
    "below",
    "./below/../below",
    "~/a fleet/below",
]


@pytest.mark.parametrize("form", FORMS)
def test_the_fleets_directory_is_resolved_once(real: Path, tmp_path: Path, form: str) -> None:
    named = form.format(real, tmp_path)
    assert fleet_root(named) == real
    assert Front(named).root == real


@pytest.mark.parametrize("form", FORMS)
def test_pyinfra_is_given_the_directory_itself(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    pyinfra()
    given: dict[str, str] = {}

    def fake(argv: list[str], **options: object) -> Completed:
        given.update(options["env"])  # type: ignore[call-overload]
        return Completed("", "", 1)

    monkeypatch.setattr(run_pyinfra, "run", fake)
    run(["--fleet", form.format(real, tmp_path), "plan"])
    assert given["FLEET"] == str(real)
