"""What integration tests begin from; the lab itself, one for all tests of a worker, is in tests/conftest.py."""

import pytest

pytest.register_assert_rewrite(*(f"tests.integration.{name}" for name in ("deployed", "verified")))

from tests.integration.deployed import fleet, made  # noqa: E402, F401  (fixtures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker(pytest.mark.lab)
