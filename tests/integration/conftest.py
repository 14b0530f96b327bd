"""One lab for all integration tests of a worker: of the tests' own, so that `make lab up` is left alone.

Each test begins from the start state, or makes what it needs.
"""

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(*(f"tests.integration.{name}" for name in ("deployed", "lab_driver", "verified")))

from tests.integration.deployed import fleet, made  # noqa: E402, F401  (fixtures)
from tests.integration.lab_driver import Lab  # noqa: E402  (after what it is imported through)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes namespaces, loop devices and mounts")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab("up", "--hosts", "4")
    yield lab
    lab("down")


@pytest.fixture
def lab(running_lab: Lab) -> Lab:
    """The lab in its start state: no managed VM exists, no fault is on, the logs are empty."""
    running_lab("reset")
    running_lab.places.lab_log.write_text("")
    return running_lab
