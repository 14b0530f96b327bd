"""The project's own flake: what it packages is what pyproject.toml says, and its options are the table's fields.

On a real nixpkgs it is evaluated by `make fleet-real FLEET=. NIXPKGS=/path` (docs/releasing.md).
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nixherd.fleet.schema import FIELDS, Place
from tests.nix_cli import nix_json

ROOT = Path(__file__).parents[1]
PACKAGE = (ROOT / "nix/package.nix").read_text()
OTHER_NAMES = {"address": "addresses", "buildOn": "build_on"}
FROM_THE_FLEET = {"access", "healthChecks"}  # options of the modules that guard a deployment on its machine
OPTIONS = f"""
let
  lib = import {ROOT}/lab/nixpkgs/lib;
  flake = (import {ROOT}/flake.nix).outputs {{self = flake; nixpkgs = {{inherit lib; legacyPackages = {{}};}};}};
  of = module: values: lib.evalModules {{modules = [module {{nixherd = values;}}];}};
  plain = of flake.homeModules.nixherd;
in {{
  outputs = builtins.attrNames flake;
  options = builtins.mapAttrs (_: option: option.description) (plain {{}}).options.nixherd;
  unset = (plain {{}}).config.nixherd;
  set = (plain {{
    address = ["10.0.0.5"]; port = 2222; tags = ["x"]; wave = 2; canary = true; buildOn = "db";
    become = "doas"; jump = ["web" "al@gate:22"];
  }}).config.nixherd;
  machine = map toString flake.nixosModules.nixherd.imports;
}}"""


def test_the_package_has_the_dependencies_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=~!\[; ]", each, maxsplit=1)[0].lower() for each in project["dependencies"]}
    [listed] = re.findall(r"^    dependencies = \[(.*?)\];", PACKAGE, re.MULTILINE | re.DOTALL)
    assert {name.rpartition(".")[2] for name in listed.split()} == declared


def test_the_package_has_all_that_its_links_lead_to() -> None:
    [listed] = re.findall(r"unions \[(.*?)\];", PACKAGE, re.DOTALL)
    sources = [(ROOT / "nix" / name).resolve() for name in listed.split()]
    assert [path for path in sources if not path.exists()] == []
    links = [path for path in (ROOT / "nixherd").rglob("*") if path.is_symlink()]
    assert {path.name for path in links} >= {"operations", "facts", "deploys", "inventory.py", "machine.sh"}
    for link in links:
        assert any(link.resolve().is_relative_to(source) for source in sources), f"{link} leads out of nix/package.nix"


@pytest.mark.nix
def test_its_options_are_fields_of_hosts_nix() -> None:
    found: dict[str, Any] = nix_json("eval", "--json", "--impure", "--expr", OPTIONS)
    fields = {field.name: field for field in FIELDS[Place.HOST]}
    of_option = {name: fields.get(OTHER_NAMES.get(name, name)) for name in found["options"]}
    assert {name for name, field in of_option.items() if field is None} <= {"port"}
    known = {name: field for name, field in of_option.items() if field}
    for name, field in known.items():
        words = re.split("[;:]", field.purpose, maxsplit=1)[0]
        description = found["options"][name]
        assert description.lower().startswith(words.lower()), f"nix/module.nix: {name} is described otherwise"
    assert set(found["options"]) == {
        *("address", "user", "become", "port", "jump", "publicKey", "tags", "wave", "canary", "role", "buildOn")
    }
    assert found["unset"] == {name: [] if name == "tags" else None for name in found["options"]}
    for name, field in known.items():
        value = found["set"][name]
        assert value is None or [*field.type.problems(value)] == [], name
    assert {"apps", "devShells", "homeModules", "nixosModules", "overlays", "packages"} <= {*found["outputs"]}
    texts = "".join(Path(each).read_text() for each in found["machine"])
    assert {name for name in FROM_THE_FLEET if f"options.nixherd.{name} =" in texts} == FROM_THE_FLEET
