"""What changes between two closures, as people read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.nix.builder import Change, closure_diff, parse_listing

HASHES = "abcdfghijklmnpqrsvwxyz0123456789"


def path(name: str, digit: str = "a") -> str:
    return f"/nix/store/{digit * 32}-{name}"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (["firefox-130.0"], ["firefox-131.0.2"], "firefox: 130.0 → 131.0.2"),
        ([], ["nginx-1.27.3"], "nginx: added 1.27.3, +10 B"),
        (["nginx-1.27.3"], [], "nginx: removed 1.27.3, -10 B"),
        ([], ["unit-script"], "unit-script: added, +10 B"),
        (["linux-6.6.1", "linux-6.6.1-modules"], ["linux-6.6.2", "linux-6.6.2-modules"],
         "linux: 6.6.1, 6.6.1-modules → 6.6.2, 6.6.2-modules"),
        (["openssl-3.1-dev", "openssl-3.1"], ["openssl-3.2", "openssl-3.2-dev"], "openssl: 3.1 → 3.2"),
        (["etc"], ["etc-1"], "etc: ∅ → 1"),
    ],
)  # fmt: skip
def test_versions(before: list[str], after: list[str], said: str) -> None:
    found = closure_diff({path(name): 10 for name in before}, {path(name): 10 for name in after})
    assert [str(change) for change in found.changes] == [said]


def test_what_was_only_rebuilt_says_so() -> None:
    before = {path("etc", "a"): 10, path("bash-5.2", "a"): 7}
    found = closure_diff(before, {path("etc", "b"): 1034, path("bash-5.2", "b"): 7})
    assert [str(change) for change in found.changes] == ["bash: 5.2 rebuilt", "etc: rebuilt, +1 KiB"]
    assert (found.before, found.after) == (17, 1041)


@given(st.dictionaries(st.text(HASHES, min_size=1, max_size=9).map(path), st.integers(0, 1 << 40)))
def test_nothing_changes_between_a_closure_and_itself(closure: dict[str, int]) -> None:
    assert closure_diff(closure, closure).changes == ()
    for change in closure_diff({}, closure).changes:
        assert isinstance(change, Change)
        assert change.before == ()


def test_what_nix_prints() -> None:
    text = f"{path('a-1')}\t   1234\nwarning: something\n{path('b')} 5\n"
    assert parse_listing(text) == {path("a-1"): 1234, path("b"): 5}
