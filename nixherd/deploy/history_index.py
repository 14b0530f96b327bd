"""An index of the history, for questions: SQLite, made from the log, and made again when it is lost, damaged or old.

Nothing is only here: whoever removes `STATE/.history/index.sqlite` loses nothing.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from nixherd.deploy.history import FORM, HistoryLine, catch_up, parsed, place

_TABLES = """
CREATE TABLE IF NOT EXISTS log (form INTEGER, inode INTEGER, offset INTEGER);
CREATE TABLE IF NOT EXISTS lines (
    run TEXT, host TEXT, number INTEGER, fleet TEXT, began TEXT, outcome TEXT, line TEXT, UNIQUE (run, host)
);
CREATE INDEX IF NOT EXISTS by_host ON lines (host, began);
CREATE INDEX IF NOT EXISTS by_began ON lines (began);
CREATE INDEX IF NOT EXISTS by_number ON lines (number);
"""
_NOBODY = ""  # the host of a run that was about none: NULL would never be the same again


def found(
    *,
    hosts: Sequence[str] = (),
    fleet: str | None = None,
    since: str | None = None,
    outcomes: Sequence[str] = (),
    number: int | None = None,
    limit: int = -1,
) -> list[HistoryLine]:
    """The lines that fit all that is given, newest first; `since` is as `began` is."""
    conditions, values = ["1"], list[object]()
    for column, choice in (("host", hosts), ("outcome", outcomes)):
        if choice:
            conditions.append(f"{column} IN ({', '.join('?' * len(choice))})")
            values += choice
    for condition, value in (("fleet = ?", fleet), ("began >= ?", since), ("number = ?", number)):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    question = f"SELECT line FROM lines WHERE {' AND '.join(conditions)} ORDER BY began DESC, run DESC, host LIMIT ?"
    with closing(_opened()) as index:
        rows = index.execute(question, [*values, limit]).fetchall()
    return [line for (text,) in rows for line in parsed(text)]


def index_place() -> Path:
    return place().with_name("index.sqlite")


def _opened() -> sqlite3.Connection:
    """The index with all of the log in it; in memory alone where it cannot be written."""
    with suppress(OSError):
        catch_up()
    path = index_place()
    for _ in range(2):
        try:
            return _updated(path)
        except (OSError, sqlite3.OperationalError):  # no room, no right to write: the log itself is read
            break
        except sqlite3.DatabaseError:  # damaged
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)
    return _updated(None)


def _updated(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    index = sqlite3.connect(path or ":memory:", timeout=30.0, isolation_level=None)
    try:
        if path is not None:
            index.execute("PRAGMA journal_mode = WAL")
        index.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            index.execute(statement)
        _take_in(index)
        index.execute("COMMIT")
    except BaseException:
        index.close()
        raise
    return index


def _take_in(index: sqlite3.Connection) -> None:
    """What the log has and the index has not: what was appended, or all where it is another log."""
    try:
        log = place().open("rb")
    except FileNotFoundError:
        index.execute("DELETE FROM lines")
        index.execute("DELETE FROM log")
        return
    with log:
        status = os.fstat(log.fileno())
        row = index.execute("SELECT form, inode, offset FROM log").fetchone()
        offset = row[2] if row and row[:2] == (FORM, status.st_ino) and row[2] <= status.st_size else 0
        if offset == 0:
            index.execute("DELETE FROM lines")
        log.seek(offset)
        text = log.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in parsed(whole.decode(errors="replace")):
        index.execute("INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?, ?, ?)", [*_row(line)])
    index.execute("DELETE FROM log")
    index.execute("INSERT INTO log VALUES (?, ?, ?)", (FORM, status.st_ino, offset + len(whole)))


def _row(line: HistoryLine) -> Iterator[object]:
    yield from (line.run, line.host or _NOBODY, line.number, line.fleet, line.began, line.outcome)
    yield json.dumps(line.to_json())
