"""What people install: a wheel, built from the source distribution, in a venv of its own and without the checkout."""

import json
import os
import socket
import subprocess
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import nix_cli, wheels

ROOT = Path(__file__).parents[1]
SOURCES = (".py", ".nix", ".sh", ".j2", ".json", ".yaml")
HOST = """{{
  web = {{ hostname = "{hostname}"; user = "root"; publicKey = "placeholder"; configurationFile = ./flake.nix;
    homeFile = ./flake.nix; addresses = [ "127.0.0.9" ]; }};
}}
"""
FLAKE = """{ outputs = _: { nixosConfigurations.web = { config = { networking.hostName = "web";
  system.build.toplevel = derivation { name = "web"; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" ""]; };
}; }; }; }
"""

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def files_below(directory: Path) -> set[str]:
    """The library's files as the wheel has to have them: what links lead to, under their own names."""
    found = set()
    for top, directories, names in os.walk(directory, followlinks=True):
        directories[:] = [name for name in directories if name != "__pycache__"]
        found |= {str((Path(top) / name).relative_to(ROOT)) for name in names if name.endswith(SOURCES)}
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both distributions; the wheel is built from the other one, without a network."""
    return wheels.build(tmp_path_factory.mktemp("dist")).parent


@dataclass(frozen=True)
class Installed:
    """A venv with the wheel, and a home and an empty directory to use it in."""

    python: Path
    home: Path
    empty: Path

    def __call__(self, *words: str, cwd: Path | None = None, status: int = 0, **environment: str) -> str:
        env = {
            name: value
            for name, value in {**os.environ, **nix_cli.environment()}.items()
            if name not in ("FLEET", "PYTHONPATH", "PROXMOX_TOKEN_FILE")
        }
        env |= {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), **environment}
        env["PATH"] = f"{self.python.parent}:{env['PATH']}"
        done = subprocess.run(
            words, cwd=cwd or self.empty, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert str(ROOT) not in done.stdout + done.stderr
        return done.stdout if "--json" in words else done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    for name in ("home", "empty"):
        (place / name).mkdir()
    [wheel] = built.glob("*.whl")
    python = wheels.install(wheel, place / "venv")
    [site] = (place / "venv/lib").glob("python*/site-packages")
    # the dependencies; the links of an editable installation of the checkout there are not followed
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(python, place / "home", place / "empty")


@pytest.fixture
def pyinfra(installed: Installed) -> Callable[[], None]:
    """Install pyinfra's own program beside ours, as pip does."""

    def install() -> None:
        script = installed.python.with_name("pyinfra")
        script.write_text(f"#!{installed.python}\nfrom pyinfra_cli.main import main\nmain()\n")
        script.chmod(0o755)

    return install


def test_both_have_all_files(built: Path) -> None:
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    expected = files_below(ROOT / "nixherd")
    assert {"nixherd/operations/proxmox.py", "nixherd/project/deploys/vms.py", "nixherd/deploy/machine.sh"} <= expected
    assert expected - in_wheel == set()
    assert {name.partition("/")[0] for name in in_wheel} - {"nixherd"} == {
        name for name in {each.partition("/")[0] for each in in_wheel} if name.endswith(".dist-info")
    }
    with tarfile.open(source) as archive:
        members = archive.getmembers()
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    in_source = {member.name.partition("/")[2] for member in members}
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
        assert {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()} - in_source == set()


def test_it_runs_from_anywhere(installed: Installed) -> None:
    assert "Provision, deploy and guard" in installed("nixherd", "--help")
    assert "no such directory" in installed("nixherd", "vm", "list", status=2)
    where = installed("python", "-c", "from nixherd.operations import proxmox; print(proxmox.__file__)")
    assert str(installed.python.parents[1]) in where
    installed("python", "-c", "import operations", status=1)


@pytest.fixture
def fleet(installed: Installed, tmp_path: Path) -> Path:
    """A fleet of one machine that is this one, in git, which nothing but its directory tells."""
    directory = tmp_path / "my fleet"
    (directory / "hosts" / "web").mkdir(parents=True)
    (directory / "flake.nix").write_text(FLAKE)
    (directory / "hosts.nix").write_text(HOST.format(hostname=socket.gethostname()))
    git = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return directory


@pytest.mark.nix
@pytest.mark.parametrize("with_program", [False, True], ids=["modules alone", "pyinfra beside it"])
def test_a_plan_is_made_in_the_fleets_directory(
    installed: Installed, fleet: Path, pyinfra: Callable[[], None], with_program: bool
) -> None:
    """The whole way: the command, the inventory, the deploys and the group data that are installed."""
    if with_program:
        pyinfra()
    (fleet / "group_data").mkdir()
    (fleet / "group_data/all.py").write_text("boot_deadline = 1\n")
    (installed.home / ".config/nixherd/group_data").mkdir(parents=True, exist_ok=True)
    (installed.home / ".config/nixherd/group_data/all.py").write_text("allow_dirty = True\n")
    document = json.loads(installed("nixherd", "plan", "--json", cwd=fleet / "hosts", status=4))
    assert [(each["host"], each["outcome"]) for each in document["hosts"]] == [("web", "unreachable")]
    (fleet / "group_data/all.py").write_text("import os\n")
    assert "group_data/all.py:1: write NAME = VALUE" in installed("nixherd", "plan", cwd=fleet, status=2)
    (fleet / "group_data/all.py").unlink()
    words = ("--data", "local=True", "--fact", "facts.machine.Machine", "--json")  # as in the checkout
    assert json.loads(installed("nixherd", "fact", "web", *words, cwd=fleet))["hosts"][0]["facts"]
    document = json.loads(installed("nixherd", "check", "--json", "--only", "definitions", cwd=fleet))
    assert document


@pytest.mark.nix
def test_pyinfra_runs_from_anywhere(installed: Installed, fleet: Path, pyinfra: Callable[[], None]) -> None:
    """`@fleet` is the fleet that we are in, `@fleet/ID` one of it."""
    pyinfra()
    local = ("--data", "local=True")
    for inventory, words in (("@fleet", ("--limit", "nixos")), ("@fleet/web", ())):
        facts = installed(
            "pyinfra", inventory, *local, *words, "fact", "nixherd.facts.machine.Machine", cwd=fleet / "hosts"
        )
        assert '"web"' in facts
    assert "@fleet nosuch: no host or group" in installed(
        "pyinfra", "@fleet/nosuch", "fact", "nixherd.facts.nix.Store", cwd=fleet, status=2
    )
    assert "no such directory" in installed("pyinfra", "@fleet", "fact", "nixherd.facts.nix.Store", status=2)


@pytest.mark.nix
def test_a_project_of_ones_own_composes_our_operations(
    installed: Installed, fleet: Path, pyinfra: Callable[[], None], tmp_path: Path
) -> None:
    pyinfra()
    project = tmp_path / "project"
    (project / "operations").mkdir(parents=True)  # its own, of the name that ours have in the checkout
    (project / "operations/__init__.py").write_text("")
    (project / "operations/words.py").write_text("GREETING = 'from the project'\n")
    (project / "inventory.py").write_text("hosts = ['@fleet']\n")
    (project / "step.py").write_text(
        "from operations.words import GREETING\n"
        "from pyinfra import host\n"
        "from nixherd.facts.machine import Machine\n"
        "from nixherd.operations import proxmox\n"
        "host.log(f'{GREETING}: {host.name} is {host.get_fact(Machine)}')\n"
        "proxmox.drift(name='drift: of its guest')\n"
    )
    words = ("pyinfra", "-y", "-v", "inventory.py", "step.py", "--data", "local=True", "--data", "mine=1")
    ended = installed(*words, cwd=project, FLEET=str(fleet))
    assert "from the project: web is {" in ended
    assert "noop: no guest of the hypervisor" in ended
