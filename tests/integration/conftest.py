"""What integration tests begin from; the lab itself, one for all tests of a worker, is in tests/conftest.py."""

import pytest

pytest.register_assert_rewrite(*(f"tests.integration.{name}" for name in ("deployed", "verified")))

from tests.integration.deployed import fleet, made  # noqa: E402, F401  (fixtures)
