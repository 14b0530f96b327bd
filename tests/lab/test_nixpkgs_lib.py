"""The stand-in's functions give what those of nixpkgs' own library (26.05) gave, recorded in nixpkgs_lib.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import nix_json

pytestmark = pytest.mark.nix

LIB = Path(__file__).parent.parent.parent / "lab" / "nixpkgs" / "lib"
RECORDED: list[tuple[str, Any]] = json.loads(Path(__file__).with_name("nixpkgs_lib.json").read_text())


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    """All calls in one evaluation."""
    calls = "\n".join(f"({call})" for call, _ in RECORDED)
    results = nix_json("eval", "--impure", "--json", "--expr", f"with import {LIB}; [{calls}]")
    return {call: result for (call, _), result in zip(RECORDED, results, strict=True)}


@pytest.mark.parametrize(("call", "expected"), RECORDED, ids=[call for call, _ in RECORDED])
def test_a_function_gives_what_nixpkgs_gives(ours: dict[str, Any], call: str, expected: Any) -> None:
    assert ours[call] == expected
