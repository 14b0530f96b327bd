"""How many examples a property test tries: few by default, the whole number in CI.

`make test CI=1` and `.ci/run` choose the CI profile, as does any environment with `CI` set. There the examples of a
property are the same in every run, so that a change is judged by itself; other runs try others each time.
"""

import os

from hypothesis import HealthCheck, settings

# What an example takes depends on the machine, so nothing is judged by time. Fixtures are made for each test, not for
# each example: a property that uses one leaves it as it was.
settings.register_profile(
    "ci", max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("small", settings.get_profile("ci"), max_examples=25, derandomize=False)

PROFILE = "ci" if os.environ.get("CI") else "small"


def examples(in_ci: int) -> settings:
    """Settings for a property that needs another number than the profile's: a tenth of it, at least ten, is small."""
    return settings(max_examples=in_ci if PROFILE == "ci" else min(in_ci, max(10, in_ci // 10)))
