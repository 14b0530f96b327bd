"""Thresholds and lists of keys, as sops itself reads them."""

import re
from pathlib import Path

import pytest

from nixherd.trust.secrets.files import read_file
from nixherd.trust.secrets.rules import Rule, parse_rules
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.test_sops_agrees import sops

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

A, B = key("admin").recipient, key("doc1").recipient
# sops takes the first; of the second it refuses the file, or what is encrypted by the rule
TAKEN = (
    """2 +2 0x2 0X2 2.0 2.5 2e0 20e-1 0b10 0B10 0o2 0O2 02 0_2 2_ 0x_2 +0x2 +0 -0 0x0 0.0 -0.0 2e-400 .2e1 2. null"""
)
REFUSED = """-1 1 3 08 010 1_0 -0x2 x true .inf .nan 2,5 1:1 2001-01-01 18446744073709551616 1e400 0x 0b2 ++2 +-2 _2
9223372036854775807 9223372036854775808 1e18 ٢ 2.0.0 0o8 0xg - + . 10000000000000000000000000000000000000000"""


def encrypted(place: Path, text: str) -> tuple[int, int] | str:
    """What sops makes of a file by these rules: its threshold and its keys; its words where it refuses."""
    (place / ".sops.yaml").write_text(text)
    words = ("--config", ".sops.yaml", "encrypt", "--filename-override", "a.yaml", "/dev/stdin")
    done = sops(place, *words, input="a: 1\n")
    if done.returncode:
        return done.stderr
    found = read_file("a.yaml", done.stdout.encode())
    assert found is not None
    return found.threshold, len(found.recipients)


def read(text: str) -> tuple[int, int] | str:
    try:
        rule = parse_rules(text).rule_of("a.yaml")
    except ValueError as error:
        return str(error)
    assert isinstance(rule, Rule)
    return rule.problem or (rule.threshold, len(rule.recipients))


@pytest.mark.parametrize("value", TAKEN.split() + REFUSED.split())
@pytest.mark.parametrize("groups", [1, 2])
def test_a_threshold(tmp_path: Path, value: str, groups: int) -> None:
    of_groups = "".join(f"  - age: [{each}]\n" for each in (A, B)[:groups])
    text = f"creation_rules:\n- shamir_threshold: {value}\n  key_groups:\n{of_groups}"
    by_sops, here = encrypted(tmp_path, text), read(text)
    assert (by_sops == here) or (isinstance(by_sops, str) and isinstance(here, str)), (by_sops, here)
    if isinstance(by_sops, str):
        is_of_file = "cannot unmarshal" in by_sops
        assert isinstance(here, str)
        assert bool(re.search("shamir_threshold '.*' is not a number", here)) is is_of_file, (by_sops, here)


@pytest.mark.parametrize(
    "value",
    [
        *(f'["{A},"]', f'[",{A}"]', f'["", {A}]', f'[{A}, ""]', f'[" ", {A}]', f'["{A},,{B}"]', f'["{A}, "]'),
        *(f'["{A},{B}"]', f'["{A}, {B}"]', f'[" {A} "]', f'"{A},"', f'",{A}"', f'"{A},,{B}"', f'"{A}, "'),
    ],
)
def test_a_list_of_keys(tmp_path: Path, value: str) -> None:
    text = f"creation_rules:\n- age: {value}\n"
    by_sops, here = encrypted(tmp_path, text), read(text)
    assert by_sops == here or ("unknown recipient" in str(by_sops) and "nothing before, between or behind" in str(here))
