"""One lab for all integration tests: a second one of this checkout, so that `make lab up` is left alone.

They run in one worker (the xdist group `lab`), one after another, each from the start state.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load_driver() -> ModuleType:
    """The driver beside this file; tests are imported by path, so it has no package to be imported from."""
    name = "lab_driver"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("lab_driver.py"))
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


driver = _load_driver()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.xdist_group("lab"))


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[driver.Lab]":  # type: ignore[name-defined]
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: it makes namespaces, loop devices and mounts")
    lab = driver.Lab(tmp_path_factory.mktemp("lab"))
    lab("up", "--hosts", "4")
    yield lab
    lab("down")


@pytest.fixture
def lab(running_lab: "driver.Lab") -> "driver.Lab":  # type: ignore[name-defined]
    """The lab in its start state: no managed VM exists, no fault is on, the request log is empty."""
    running_lab("reset")
    return running_lab


@pytest.fixture(scope="session")
def _provisioned_once(running_lab: "driver.Lab") -> dict[str, object]:  # type: ignore[name-defined]
    return {}
