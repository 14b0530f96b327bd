"""The gate's results in the formats of others: JUnit's XML, SARIF, and GitHub Actions' annotations.

Written here: JUnit's is one element in another, and a library would bring a model of everything that a test run has;
sarif-om has had no release since 2019, and five of SARIF's objects are enough. Sources: the Apache Ant schema that CI
systems read; SARIF 2.1.0 (OASIS); GitHub's "Workflow commands for GitHub Actions", and @actions/core's command.ts.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from nixherd.base.display import visible, visible_values
from nixherd.base.errors import Severity
from nixherd.gate.results import Found, Result, Status

SUITE = "nixherd check"


def junit(results: Sequence[Result]) -> str:
    """A test case a tool: findings are failures, what cannot be told is an error, what was left out is skipped."""
    seconds = f"{sum(result.seconds for result in results):.3f}"
    ends = Counter(result.status for result in results)
    errors, skipped = ends[Status.UNKNOWN] + ends[Status.MISSING], ends[Status.NOT_RUN]
    counts = {"tests": len(results), "failures": ends[Status.FAILED], "errors": errors, "skipped": skipped}
    numbers = {name: str(number) for name, number in counts.items()}
    top = ElementTree.Element("testsuites", {"name": SUITE, **numbers, "time": seconds})
    suite = ElementTree.SubElement(top, "testsuite", {"name": SUITE, **numbers, "time": seconds})
    for result in results:
        _case(suite, result)
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    attributes = {"classname": SUITE, "name": result.tool, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    lines = visible("\n".join(map(str, result.findings)))
    match result.status:
        case Status.NOT_RUN:
            ElementTree.SubElement(case, "skipped", {"message": f"not run: {result.note}"})
        case Status.UNKNOWN | Status.MISSING:
            kind = {"message": visible(result.reason), "type": str(result.status)}
            ElementTree.SubElement(case, "error", kind).text = lines
        case Status.FAILED:
            kind = {"message": f"{len(result.findings)} findings", "type": "findings"}
            ElementTree.SubElement(case, "failure", kind).text = lines


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"


def sarif(results: Sequence[Result], prefix: str = "") -> dict[str, Any]:
    """A run a tool. `prefix` is where in its repository the fleet is: paths are told from the repository's top."""
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
    document: dict[str, Any] = {
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
        document["locations"] = [{"physicalLocation": place}]
    return document


_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def annotations(results: Sequence[Result], prefix: str = "") -> Iterator[str]:
    """A command for each finding, and one for each tool of which nothing is known. `prefix` as in SARIF."""
    for result in results:
        for found in result.findings:
            place = {"file": f"{prefix}{found.file}" if found.file else None, "line": found.line, "col": found.column}
            level = "warning" if found.severity is Severity.WARNING else "error"
            yield _command(level, {**place, "title": result.tool}, found.message)
        if result.status in (Status.UNKNOWN, Status.MISSING):
            yield _command("error", {"title": result.tool}, f"{result.status}: {result.reason}")
        elif result.status is Status.NOT_RUN:
            yield _command("notice", {"title": result.tool}, f"not run: {result.note}")


def _command(level: str, properties: Mapping[str, object], text: str) -> str:
    given = {name: str(value) for name, value in properties.items() if value is not None}
    words = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in given.items())
    return f"::{level} {words}::{_escaped(text, _DATA)}"


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in visible(text))
