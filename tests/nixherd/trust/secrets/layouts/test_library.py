"""The layouts are what the library says of them: by YAML alone, and by what real sops encrypts files for."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.nix_cli import environment
from tests.nixherd.trust.secrets.layouts.layout import KEYS, KINDS, Layout
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS, TREES

FIELDS = ("age", "pgp", "kms", "hc_vault")  # in sops' order
ALL = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def groups(rule: dict[str, Any]) -> tuple[str, ...]:
    return tuple(" ".join(map(label, keys(group))) for group in rule.get("key_groups") or [rule])


def keys(group: dict[str, Any]) -> list[str]:
    found = [key for each in group.get("merge") or [] for key in keys(each)]
    for field in FIELDS:
        value = group.get(field) or []
        entries = value.split(",") if isinstance(value, str) else value
        found += [entry["arn"] if isinstance(entry, dict) else entry.strip() for entry in entries]
    return list(dict.fromkeys(found))


def label(recipient: str) -> str:
    return next(label for label, each in KEYS.items() if each == recipient)


@ALL
def test_rules_are_as_the_library_says(layout: Layout) -> None:
    rules = yaml.load(layout.text, Loader=yaml.CSafeLoader)["creation_rules"]  # libyaml, which is near to sops' parser
    assert [(rule.get("path_regex"), groups(rule), rule.get("shamir_threshold", 0)) for rule in rules] == [
        (rule.path_regex, rule.groups, rule.threshold) for rule in layout.rules
    ]


@pytest.mark.nix
@ALL
def test_sops_encrypts_for_whom_the_library_says(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / ".sops.yaml").write_bytes(layout.text.encode())
    for path, number in layout.paths.items():
        words = " ".join(layout.rules[number - 1].groups).split() if number else []
        if "yubikey" in words or set(words) & set(KINDS):
            continue  # which this test has no program or server for
        done = encrypted(tmp_path, path)
        if number is None:
            assert done.returncode != 0
            assert "no matching creation rules found" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        metadata = json.loads(done.stdout)["sops"]
        parts = metadata.get("key_groups") or [metadata]
        labels = tuple(" ".join(label(entry["recipient"]) for entry in part["age"]) for part in parts)
        assert labels == layout.rules[number - 1].groups
        assert metadata.get("shamir_threshold", 0) == layout.rules[number - 1].threshold


def encrypted(directory: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Have sops encrypt a file of this name, for whom the configuration in the directory says."""
    place = directory / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text('{"a": "b"}')
    command = ["sops", "encrypt", "--input-type", "json", "--output-type", "json", path]
    return subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_each_file_is_in_the_library() -> None:
    files = {path.name.removesuffix(".sops.yaml") for path in Path(__file__).parent.glob("*.sops.yaml")}
    assert files == set(LAYOUTS)
    assert {name for names in TREES.values() for name in names} <= set(LAYOUTS)
