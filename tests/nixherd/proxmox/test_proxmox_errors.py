"""Every error that real servers were recorded to give, as the one line that is made of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import AgentUnavailable, OutcomeUnknown
from nixherd.proxmox import wire

RECORDINGS = Path(__file__).parents[4] / "shared" / "pve" / "recordings"
WHO = "nixherd@pve!fleet"


def recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every recorded call of the JSON format that ended with an error."""
    for file in sorted(RECORDINGS.glob("*.json")):
        for entry in json.loads(file.read_text()):
            if "request" in entry and int(entry["status"] or 0) >= 400 and "/json/" in entry["request"]["url"]:
                yield f"{file.stem}/{entry['label']}", entry


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"no recordings: {RECORDINGS} is not there")
def test_every_recorded_error_is_one_sentence_that_names_the_parameter() -> None:
    seen = 0
    for label, entry in recorded():
        request, body = entry["request"], entry["body"]
        raw = json.dumps(body).encode() if isinstance(body, (dict, list)) else str(body or "").encode()
        method, path = str(request["method"]), str(request["url"]).partition("?")[0].removeprefix(wire.PREFIX)
        error = wire.error_of(method, path, int(entry["status"]), str(entry["reason"] or ""), raw, WHO)
        text = str(error)
        seen += 1
        assert "\n" not in text, label
        assert f"{method} {path}: " in text, label
        assert not re.search(r"\s{2}|\\n|HASH\(0x", text), f"{label}: {text}"
        if isinstance(body, dict) and isinstance(body.get("errors"), dict):
            for parameter, said in body["errors"].items():
                assert f"{parameter}: {' '.join(str(said).split())}" in text, label
        unknown = int(entry["status"]) in wire.NO_ANSWER
        if unknown and "/agent/" not in path:
            assert isinstance(error, OutcomeUnknown) == (method != "GET"), label
        if "QEMU guest agent is not running" in text:
            assert isinstance(error, AgentUnavailable), label
    assert seen > 150
