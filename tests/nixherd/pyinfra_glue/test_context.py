"""Who answers, and what begins once that is known."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.pyinfra_glue.context import RollCall

HOSTS = ("a", "b", "c", "d")


@given(st.permutations(HOSTS), st.sets(st.sampled_from(HOSTS)), st.lists(st.sampled_from(HOSTS)))
def test_it_begins_once_with_those_that_answer(order: Sequence[str], present: set[str], again: Sequence[str]) -> None:
    begun: list[tuple[str, ...]] = []
    call = RollCall(HOSTS, begun.append)
    for host in order[:-1]:
        call.report(host, present=host in present)
        assert begun == []
    call.report(order[0], present=order[0] not in present)  # the first report counts
    call.report(order[-1], present=order[-1] in present)
    for host in (*again, "stranger"):
        call.report(host, present=True)
    assert begun == ([tuple(sorted(present))] if present else [])


@pytest.mark.process
def test_an_inventory_does_not_load_what_only_changes_of_guests_need() -> None:
    """Each run of pyinfra loads it; deploys that have to do with guests load the rest."""
    script = "import sys, nixherd.pyinfra_glue.inventory\nprint(*(each for each in sys.modules if '.steps' in each))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
