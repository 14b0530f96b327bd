"""Fixtures that several directories of tests share."""

import functools
import gc
import importlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.integration.lab_driver")

from tests import spawning, unit_guard  # noqa: E402
from tests.integration.lab_driver import Lab  # noqa: E402  (after it is said how it is imported)
from tests.orderly_end import OrderlyEnd  # noqa: E402
from tests.preloaded.programs import Programs, preloaded, shared  # noqa: E402
from tests.properties import PROFILE  # noqa: E402
from tests.readable_ids import readable  # noqa: E402

settings.load_profile(PROFILE)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(unit_guard)
    config.pluginmanager.register(OrderlyEnd(config))


def _import_pyinfra_cli() -> None:
    """Import pyinfra's command line without its patches, for the tests that call what imports it.

    In a worker that gevent has patched, waiting for the next test ends with LoopExit where nothing else runs.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gevent.monkey.patch_all", lambda **_: None)
        importlib.import_module("pyinfra_cli")
    connectors = importlib.import_module("pyinfra.api.connectors")
    connectors.entry_points = functools.cache(connectors.entry_points)  # type: ignore[attr-defined]  # each host looks


def pytest_sessionstart() -> None:
    """Collect without Python's collector of garbage: each pass would go through five thousand tests again."""
    gc.disable()
    _import_pyinfra_cli()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what was collected and imported out of all later passes of the collector of garbage."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)  # the usual 700 has it look through everything far more often
    gc.enable()
    spawning.put_right()  # from now on this process is large, and whatever it starts would be forked from it


def pytest_make_parametrize_id(val: object) -> str | None:
    return readable(val)


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who deploys to the provisioned fleet does so in one worker of three: making it takes half a minute."""
    unit_guard.mark(items)
    for item in items:
        if "made" in getattr(item, "fixturenames", ()):
            place = "security" if "security" in item.path.parts else item.path.stem
            item.add_marker(pytest.mark.xdist_group(_FLEETS.get(place, "fleet")))


# As long as the rest of them, each.
_FLEETS = {
    "test_deploy": "fleet-deployed",
    "test_everyday": "fleet-deployed",
    "test_deploy_choices": "fleet-deployed",
    "security": "fleet-attacked",
}


MASTER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY operator"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J root@doc1"

HOSTS_NIX = f"""\
# A small fleet: a managed VM, an imported one, and a machine with Home Manager only.
let
  masterKeys = [ "{MASTER_KEY}" ];
in
{{
  dev = {{
    hostname = "dev";
    sshAlias = "dev";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "placeholder";
    authorizedKeys = masterKeys;
    configurationFile = ./hosts/dev/configuration.nix;
    homeFile = ./hosts/dev/home.nix;
  }};
  proxmox-vm = {{
    hostname = "proxmox-vm";
    sshAlias = "doc1";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = "{HOST_KEY}";
    authorizedKeys = masterKeys;
    configurationFile = ./hosts/proxmox-vm/configuration.nix;
    homeFile = ./hosts/proxmox-vm/home.nix;
    sudoPasswordless = true;
  }};
  caddy = {{
    hostname = "caddy";
    sshAlias = "cad";
    user = "abl030";
    homeDirectory = "/home/abl030";
    publicKey = null;
    authorizedKeys = masterKeys;
    homeFile = ./hosts/caddy/home.nix;
  }};
}}
"""

DEFINITIONS_NIX = """\
{
  proxmox = { host = "127.0.0.1"; node = "prom"; user = "root"; defaultStorage = "nvmeprom"; };
  imported = {
    doc1 = {
      vmid = 104;
      hostname = "proxmox-vm";
      sshAlias = "doc1";
      status = "running";
      specs = { cores = 8; disk = "passthrough"; };
      services = [ "docker" ];
      readonly = true;
    };
  };
  managed = {
    dev = {
      vmid = 110;
      cores = 4;
      memory = 8192;
      disk = "64G";
      storage = "nvmeprom";
      nixosConfig = "dev";
      purpose = "development";
      services = [ ];
    };
  };
  template = { vmid = 9002; name = "base"; description = "what new machines are cloned from"; specs = { }; };
  vmidRanges = {
    production = { start = 100; end = 199; description = "virtual machines"; };
    containers = { start = 200; end = 299; description = "containers"; };
    templates = { start = 9000; end = 9999; description = "templates"; };
  };
}
"""

MakeFleet = Callable[..., Path]


@pytest.fixture
def make_fleet(tmp_path: Path) -> MakeFleet:
    """Writes a small fleet and returns its directory.

    `edits` are (old, new) texts replaced in both files, each of which must be there; `definitions=None` leaves
    vms/definitions.nix out.
    """

    def make(
        *edits: tuple[str, str], hosts: str = HOSTS_NIX, definitions: str | None = DEFINITIONS_NIX, name: str = "fleet"
    ) -> Path:
        directory = tmp_path / name
        for old, new in edits:
            assert old in hosts + (definitions or ""), f"nothing to edit: {old!r}"
            hosts = hosts.replace(old, new)
            definitions = definitions.replace(old, new) if definitions else definitions
        for host in ("dev", "proxmox-vm", "caddy"):
            (directory / "hosts" / host).mkdir(parents=True)
            (directory / "hosts" / host / "configuration.nix").write_text("{ }\n")
            (directory / "hosts" / host / "home.nix").write_text("{ }\n")
        (directory / "hosts.nix").write_text(hosts)
        if definitions is not None:
            (directory / "vms").mkdir()
            (directory / "vms" / "definitions.nix").write_text(definitions)
        return directory

    return make


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Gives an environment `pyinfra` and `nixherd` that have been imported already (tests/preloaded)."""
    with shared(tmp_path_factory.getbasetemp(), "programs") as place:
        yield partial(preloaded, place)


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab for all tests of a worker: of the tests' own, so that `make lab up` is left alone."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes namespaces, loop devices and mounts")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab("up", "--hosts", "4")
    lab.preloaded(lab.inside()[1])  # by the time that the first test runs a program, it can be forked
    yield lab
    lab("down")


@pytest.fixture
def lab(running_lab: Lab) -> Lab:
    """The lab in its start state: no managed VM exists, no fault is on, the logs are empty."""
    running_lab("reset")
    running_lab.places.lab_log.write_text("")
    return running_lab
