"""The gate's results as JUnit's XML: a test case a tool. Format: the Apache Ant schema that CI systems read.

Written by ourselves: it is one element in another; a library would bring a model of everything that a test run has.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

from nixherd.display import visible
from nixherd.gate.results import Result, Status

SUITE = "nixherd check"


def document(results: Sequence[Result]) -> str:
    """Findings are failures, what cannot be told is an error, what was left out is skipped."""
    seconds = f"{sum(result.seconds for result in results):.3f}"
    counts = {
        "tests": len(results),
        "failures": sum(result.status is Status.FAILED for result in results),
        "errors": sum(result.status in (Status.UNKNOWN, Status.MISSING) for result in results),
        "skipped": sum(result.status is Status.NOT_RUN for result in results),
    }
    numbers = {name: str(number) for name, number in counts.items()}
    top = ElementTree.Element("testsuites", {"name": SUITE, **numbers, "time": seconds})
    suite = ElementTree.SubElement(top, "testsuite", {"name": SUITE, **numbers, "time": seconds})
    for result in results:
        _case(suite, result)
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    about = {"classname": SUITE, "name": result.tool, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", about)
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
