"""A raw hive has the nodes that colmena itself would make, on a real nixpkgs: NIXPKGS and COLMENA are the sources.

Nothing is fetched, and of colmena only its evaluator is read, from its own place.
"""

import json
import os
from pathlib import Path

import pytest

import nixherd.nix
from tests import nix_cli

GIVEN = [os.environ.get(name, "") for name in ("NIXPKGS", "COLMENA")]
HIVE = Path(__file__).with_name("hive.nix")
RAW_HIVE = Path(nixherd.nix.__file__).with_name("raw_hive.nix")
_BOTH = f"""let
  hive = import {HIVE} {GIVEN[0]};
  ours = import {RAW_HIVE} {{ colmena = hive; }};
  theirs = (import {GIVEN[1]}/src/nix/hive/eval.nix {{ rawFlake.outputs.colmena = hive; }}).nodes;
  made = builtins.mapAttrs (_: node: node.config.system.build.toplevel.drvPath);
in {{ ours = made ours; theirs = made theirs; }}
"""


@pytest.mark.nix
@pytest.mark.slow
@pytest.mark.skipif(not all(GIVEN), reason="NIXPKGS and COLMENA do not name the sources of nixpkgs and colmena")
@pytest.mark.timeout(600)
def test_a_raw_hives_systems_are_colmenas() -> None:
    made = json.loads(nix_cli.nix("eval", "--impure", "--json", "--expr", _BOTH))
    assert made["ours"] == made["theirs"]
    assert sorted(made["ours"]) == ["first", "second", "third"]
    assert len(set(made["ours"].values())) == 3
