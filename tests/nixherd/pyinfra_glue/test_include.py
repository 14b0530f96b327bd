"""pyinfra loads hosts' files side by side: what a file includes is beside it, whatever the other hosts do."""

import gevent
import pytest
from pyinfra.api.state import State
from pyinfra.api.util import get_file_path

from nixherd.pyinfra_glue.cli import include_beside_the_file


def test_a_host_that_is_through_with_its_file_does_not_change_where_the_others_include_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(State, "current_exec_filename", None)
    include_beside_the_file()
    state = State()
    state.cwd = "/elsewhere"

    def load(file: str, seconds: float) -> str:
        """As pyinfra_cli.util.exec_file does."""
        before = state.current_exec_filename
        state.current_exec_filename = file
        gevent.sleep(seconds)
        included: str = get_file_path(state, "./included.py")
        state.current_exec_filename = before
        return included

    loading = [gevent.spawn(load, "/deploys/deploy.py", seconds) for seconds in (0.005, 0.02, 0)]
    gevent.joinall(loading, raise_error=True)
    assert [each.value for each in loading] == ["/deploys/included.py"] * 3
    assert get_file_path(state, "./included.py") == "/elsewhere/included.py"
