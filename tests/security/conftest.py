"""What the security tests act against: machines of the lab, provisioned like those of the integration tests."""

import pytest

pytest.register_assert_rewrite(*(f"tests.integration.{name}" for name in ("deployed", "verified")))

from tests.integration.deployed import fleet, made  # noqa: E402, F401  (fixtures)
