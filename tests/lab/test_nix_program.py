"""The Nix that the lab makes: its programs and libraries start without binding every function."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from lab.setup.elf import bind_lazily

PROGRAM = Path("/bin/bash")


def run(program: Path, **environment: str) -> str:
    done = subprocess.run(
        [program, "-c", "echo $((6 * 7)) | cat; exit 3"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(PROGRAM.resolve(), tmp_path / "program"))


def bound(program: Path) -> int:
    """How many functions and variables are bound as it starts."""
    words = run(program, LD_DEBUG="statistics", PATH="/usr/bin:/bin").split("number of relocations:")
    return int(words[1].split()[0])


@pytest.mark.process
def test_a_program_binds_what_it_calls_and_does_as_before(program: Path) -> None:
    before = bound(program)
    assert bind_lazily(program)
    assert run(program, PATH="/usr/bin:/bin") == "42\n"
    assert bound(program) < before * 2 / 3  # libraries stay as they are
    text = program.read_bytes()
    assert bind_lazily(program)
    assert program.read_bytes() == text


def test_what_is_no_such_program_stays_as_it_is(program: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not bind_lazily(script)
    data = bytearray(program.read_bytes())
    [start], [count] = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    for at in range(start, start + count * 56, 56):  # no code that could bind a function
        type, flags = struct.unpack_from("<II", data, at)
        struct.pack_into("<II", data, at, type, flags & ~1)
    program.write_bytes(data)
    assert not bind_lazily(program)
    assert program.read_bytes() == data
