"""Health checks as they are written."""

import pytest

from nixherd.errors import Usage
from nixherd.fleet.health_checks import Check, parse


def test_every_kind() -> None:
    assert parse("web", None) == ()
    checks = {
        "site": {"http": "http://localhost:8080/health", "status": 204, "timeout": 5, "tcp": None},
        "db": {"tcp": 5432},
        "far": {"tcp": "[::1]:53"},
        "jobs": {"unit": "cron.service"},
        "own": {"command": "test -e /run/ready"},
    }
    assert parse("web", checks) == (
        Check("db", "tcp", "localhost:5432"),
        Check("far", "tcp", "[::1]:53"),
        Check("jobs", "unit", "cron.service"),
        Check("own", "command", "test -e /run/ready"),
        Check("site", "http", "http://localhost:8080/health", 5, 204),
    )
    assert [check.address for check in parse("web", checks) if check.kind in ("tcp", "http")] == [
        ("localhost", 5432),
        ("::1", 53),
        ("localhost", 8080),
    ]
    assert Check("a", "http", "http://example").address == ("example", 80)


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([], "web: is not a set of checks by name"),
        ({"a": {}}, "web.a: does not say what is checked; write one of unit, command, tcp, http"),
        ({"a": "http://x"}, "web.a: does not say what is checked; write one of unit, command, tcp, http"),
        ({"a": {"unit": "x", "tcp": 1}}, "web.a: does not say what is checked"),
        ({"a": {"url": "x"}}, "web.a.url: no such check"),
        ({"a": {"tcp": 0}}, "web.a.tcp: 'localhost:0' is neither a port nor HOST:PORT"),
        ({"a": {"tcp": 65536}}, "web.a.tcp: 'localhost:65536' is neither a port nor HOST:PORT"),
        ({"a": {"tcp": ":80"}}, "web.a.tcp: ':80' is neither a port nor HOST:PORT"),
        ({"a": {"tcp": True}}, "web.a.tcp: True is not text"),
        ({"a": {"http": "https://x/"}}, "web.a.http: 'https://x/' is not an http:// URL"),
        ({"a": {"unit": "-x"}}, "web.a.unit: '-x' is not a unit"),
        ({"a": {"unit": ""}}, "web.a.unit: '' is not text"),
        ({"a": {"unit": "x", "timeout": 0}}, "web.a.timeout: 0 is not a number of seconds"),
        ({"a": {"http": "http://x", "status": 99}}, "web.a.status: 99 is not a status of HTTP"),
    ],
)
def test_what_is_no_check_is_said(checks: object, said: str) -> None:
    with pytest.raises(Usage) as raised:
        parse("web", checks)
    assert str(raised.value).startswith(said)
