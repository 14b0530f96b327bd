"""Replays recordings of real servers, where they are at hand (they are not part of the repository)."""

import pytest

from lab.api.make_schema import condensed, documented
from lab.api.routes import REGISTRY
from lab.api.schema import FILE
from tests.lab.conformance import FIRST, SECOND, SHARED, TOOL, replay, replay_all, share

needs_recordings = pytest.mark.skipif(not TOOL.exists(), reason=f"no recordings: {TOOL} is not there")

# What is replayed in less than half a minute; the others wait longer, as the real server did: `make conformance`.
QUICK = {
    FIRST: ("agent2-params", "lifecycle", "resources-lag", "shutdown-real"),
    SECOND: (
        *("backup-restore", "cleanup-lock", "digest", "hotplug", "move-disk", "pvestatd-down", "rights-recipe"),
        *("storages-away", "template-snapshot"),
    ),
}


@needs_recordings
def test_the_schema_is_what_its_generator_makes_of_the_documentation() -> None:
    folder = SHARED / "pve"
    old, new = (documented(folder / f"apidoc-{version}.json") for version in (8, 9))
    assert FILE.read_text() == condensed(old, new)
    assert not [key for key in REGISTRY if key not in old and key not in new]


@pytest.mark.process
@needs_recordings
def test_parameters_configuration_and_resize_agree() -> None:
    found = replay(FIRST, "params-config-resize")
    assert found.agreed == found.compared > 100, found.report


@pytest.mark.slow
@needs_recordings
def test_the_quick_recordings_agree() -> None:
    """Rights all of them: where the emulator allows more than the server did, a hole in the guard shows as damage."""
    sets = [(series, name) for series, names in QUICK.items() for name in names]
    found = dict(zip(sets, replay_all(sets), strict=True))
    for series, names in QUICK.items():
        cases = [found[series, name] for name in names]
        assert share(cases) >= 0.98, "\n".join(one.report for one in cases)
    rights = found[SECOND, "rights-recipe"]
    assert rights.agreed == rights.compared > 90, rights.report
