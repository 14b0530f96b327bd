"""The gate's results as SARIF 2.1.0 (OASIS), as code scanning reads it: a run a tool.

Written by ourselves: sarif-om has had no release since 2019, and what we say is five of the format's objects.
"""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from nixherd.display import visible_values
from nixherd.findings import Severity
from nixherd.gate.results import Found, Result, Status

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"


def document(results: Sequence[Result], prefix: str = "") -> dict[str, Any]:
    """`prefix` is where in its repository the fleet is: paths are told from the repository's top."""
    runs = [_run(result, prefix) for result in results]
    whole: dict[str, Any] = visible_values({"$schema": SCHEMA, "version": "2.1.0", "runs": runs})
    return whole


def _run(result: Result, prefix: str) -> dict[str, Any]:
    """A tool that was left out, or of which nothing is known, has not been executed successfully, and says so."""
    rules = sorted({_rule(result, found) for found in result.findings})
    invocation: dict[str, Any] = {"executionSuccessful": result.status in (Status.OK, Status.FAILED)}
    if not invocation["executionSuccessful"]:
        left_out = result.status is Status.NOT_RUN
        text = f"not run: {result.note}" if left_out else f"{result.status}: {result.reason}"
        level = "note" if left_out else "error"
        invocation["toolExecutionNotifications"] = [{"level": level, "message": {"text": text}}]
    return {
        "tool": {"driver": {"name": result.tool, "rules": [{"id": rule} for rule in rules]}},
        "automationDetails": {"id": f"nixherd/{result.tool}"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": [_result(result, found, rules, prefix) for found in result.findings],
    }


def _rule(result: Result, found: Found) -> str:
    return found.rule or result.tool


def _result(result: Result, found: Found, rules: Sequence[str], prefix: str) -> dict[str, Any]:
    rule = _rule(result, found)
    told: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": "warning" if found.severity is Severity.WARNING else "error",
        "message": {"text": found.message},
    }
    if found.file is not None:
        place: dict[str, Any] = {
            "artifactLocation": {"uri": quote(os.fsencode(f"{prefix}{found.file}")), "uriBaseId": _ROOT}
        }
        if found.line is not None:
            column = {"startColumn": found.column} if found.column is not None else {}
            place["region"] = {"startLine": found.line, **column}
        told["locations"] = [{"physicalLocation": place}]
    return told
