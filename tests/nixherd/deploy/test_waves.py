"""The order of a rollout, and when it stops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import Usage
from nixherd.deploy.options import CANARIES, MaxFail, wave_label, wave_of


def test_canaries_go_first_and_who_says_nothing_goes_in_wave_1() -> None:
    assert [wave_of("a", *said) for said in ((True, 7), (None, None), (False, 3), (0, 1))] == [CANARIES, 1, 3, 1]
    assert (wave_label(CANARIES), wave_label(3)) == ("canaries", "wave 3")


@pytest.mark.parametrize(
    ("canary", "wave"), [("yes", None), (None, 0), (None, -1), (None, "2"), (None, True), (None, 1.5)]
)
def test_what_is_no_wave_is_said(canary: object, wave: object) -> None:
    with pytest.raises(Usage, match=r"^web: (canary|wave)="):
        wave_of("web", canary, wave)


@pytest.mark.parametrize("said", ["", "a", "-1", -1, "101%", "1.5", "1.5%", True, [1]])
def test_what_is_no_number_of_hosts_is_said(said: object) -> None:
    with pytest.raises(Usage, match="neither a number of hosts nor a percentage"):
        MaxFail.of(said)


def test_a_wave_waits_for_the_proof_of_those_before_it() -> None:
    nobody_said = MaxFail.of(None)
    assert nobody_said.holds(1, {}, 9) is None
    assert nobody_said.holds(1, {"b": 1}, 9) is None, "the others of its wave go on"
    assert nobody_said.holds(2, {"b": 1, "a": 0}, 9) == "a, b failed in a wave before wave 2"


def test_so_many_may_fail_within_and_between_waves() -> None:
    one = MaxFail.of(1)
    assert one.holds(2, {"a": 1}, 9) is None
    assert one.holds(1, {"a": 1, "b": 1}, 9) == "2 of 9 hosts failed (a, b), more than max_fail allows"
    assert MaxFail.of(0).holds(1, {"a": 1}, 9) is not None
    assert MaxFail.of("10%").holds(2, {"a": 1}, 10) is None
    assert MaxFail.of("10 %").holds(2, {"a": 1}, 9) is not None


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 5)), st.integers(0, 5), st.integers(0, 20))
def test_more_failures_never_let_more_begin(failed: dict[str, int], wave: int, allowed: int) -> None:
    limit = MaxFail(number=allowed)
    before = limit.holds(wave, failed, 100)
    assert before is None or limit.holds(wave, {**failed, "another\0": wave}, 100) is not None
    assert (before is None) == (len(failed) <= allowed)
