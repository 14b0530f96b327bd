"""Commands for any login shell, and their answers among what it prints."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.ssh.login_shell import MOST, NOT_RUN, Answer, Command, TooLong, answered
from tests.properties import examples
from tests.sshd import usable

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=12), max_size=4)
SCRIPT = """\
printf '%s\\n' 'a!b' "it's" '\\n\\041' 'two
lines' '$HOME `id` $(id)' '~ * ? {a,b} ^x^y %s %%' 'é\t' \\\\ ''; printf 'no newline'
printf 'wrong!\\n' >&2; exit 3
"""
PRINTED = ["a!b", "it's", "\\n\\041", "two", "lines", "$HOME `id` $(id)", "~ * ? {a,b} ^x^y %s %%", "é\t", "\\", ""]


def received(answer: Answer, out: str, err: str) -> tuple[list[str], list[str]]:
    one, two = (
        list(answer.output(stream, [f"{line}\n" for line in text.removesuffix("\n").split("\n")] if text else []))
        for stream, text in enumerate((out, err), 1)
    )
    return one, two


@examples(300)
@given(*[LINES] * 4, st.booleans(), st.booleans(), st.integers(0, 255))
def test_nothing_that_is_printed_around_an_answer_is_taken_for_it(
    before: list[str],
    out: list[str],
    err: list[str],
    after: list[str],
    ends: bool,
    after_ends: bool,
    status: int,
) -> None:
    answer = Answer("mark")
    printed = [[*lines, "x"] for lines in (out, err)]  # whether a last line ends with a newline is not told
    texts = [
        "\n".join(before)  # with or without a newline at its end
        + f"\nmark {stream} begin {'/bin/bash:/root' if stream == 1 else ''}\n"
        + "\n".join(lines)
        + ("\n" if ends else "")
        + f"\nmark {stream} end {status if stream == 1 else ''}\n"
        + "\n".join(after)
        + ("\n" if after_ends else "")
        for stream, lines in enumerate(printed, 1)
    ]
    assert list(received(answer, *texts)) == printed
    assert (answer.shell, answer.home, answer.ended(status ^ 1)) == ("/bin/bash", "/root", status)
    assert bool(answer.noise) == any(line.strip() for line in [*before, *after])


def ask(argv: list[str], script: str) -> tuple[list[str], list[str], Answer, int]:
    """By way of a shell, as sshd starts it: with one argument, in the environment of a login without locales."""
    command = Command(script)
    environment = {"PATH": os.environ["PATH"], "SHELL": argv[-1], "HOME": "/root"}
    done = subprocess.run([*argv, "-c", command.text], env=environment, capture_output=True)
    answer = Answer(command.mark)
    return *received(answer, done.stdout.decode(), done.stderr.decode()), answer, done.returncode


def test_a_script_comes_through_a_shell_as_it_is() -> None:
    out, err, answer, status = ask(["/bin/sh"], SCRIPT)
    assert (out, err) == ([*PRINTED, "no newline"], ["wrong!"])
    assert (answer.shell, answer.noise, answer.ended(status)) == ("/bin/sh", [], 3)


def test_a_script_that_was_killed_has_nothing_more_to_say() -> None:
    out, err, answer, status = ask(["/bin/sh"], "echo one; kill -TERM $$")
    assert (out, err, answer.ended(status)) == (["one"], [], 143)


@pytest.mark.skipif(usable() is not None, reason="the base root's shells need root")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_a_script_comes_through_any_login_shell_as_it_is(base_root: Path, shell: str) -> None:
    for script in (SCRIPT, SCRIPT + "#" + "it's \"`~!^" * 2000):
        out, err, answer, status = ask(["chroot", str(base_root), f"/usr/bin/{shell}"], script)
        assert (out, err) == ([*PRINTED, "no newline"], ["wrong!"])
        assert (answer.noise, answer.ended(status)) == ([], 3)


def test_one_line_of_printable_ascii_is_sent() -> None:
    text = Command("echo 'é!\\'\n\r").text
    assert text.isascii()
    assert text.isprintable()
    assert text.count("'") == 4
    assert "!" not in text


def test_what_no_machine_takes_is_not_sent() -> None:
    with pytest.raises(TooLong, match="a command of 131071 characters is longer than a machine takes"):
        _ = Command("x" * MOST).text


def test_an_answer_without_an_end_is_not_a_good_one() -> None:
    answer = Answer("mark")
    assert received(answer, "hi\nmark 1 begin /bin/sh:/root\none\ntwo", "") == (["one", "two"], [])
    assert answer.ended(0) == -1
    assert answer.ended(137) == 137


def test_a_terminal_makes_one_of_both_streams() -> None:
    answer = Answer("mark")
    text = "hi\r\n\r\nmark 1 begin /bin/sh:/root\r\n\r\nmark 2 begin\r\none\r\n\r\nmark 1 end 0\r\n\r\nmark 2 end\r\n"
    assert received(answer, text, "") == (["one\r"], [])
    assert (answer.noise, answer.status) == (["hi\r"], 0)


@pytest.mark.parametrize(
    ("printed", "status", "message"),
    [
        (
            "This account is currently not available.",
            1,
            'the login shell of root runs no command there, and says "This account is currently not available."; give '
            "root one that is there and runs commands: users.users.root.shell in its configuration, or "
            "`chsh -s /bin/sh root` on its console",
        ),
        (
            "/usr/bin/zsh: No such file or directory",
            1,
            "the login shell of root, /usr/bin/zsh, cannot be started there (No such file or directory); give root",
        ),
        ("", 0, "the login shell of root runs no command there, and says nothing; give"),
    ],
)
def test_a_shell_that_runs_nothing_is_named(printed: str, status: int, message: str) -> None:
    answer = Answer("mark")
    assert received(answer, "", printed) == ([], [])
    assert answer.not_run("root").startswith(message)
    assert answer.ended(status) == (status or NOT_RUN)


@pytest.mark.parametrize(
    ("shell", "advice"),
    [
        ("/bin/bash", "/home/me/.bashrc, or what it reads, prints it in every command: guard it with `[[ $- == *i* ]]"),
        ("/run/current-system/sw/bin/zsh", "/home/me/.zshenv, or what it reads, prints it in every command: move it"),
        ("/usr/bin/fish", "/home/me/.config/fish/config.fish, or what it reads, prints it in every command: put it"),
        ("/bin/tcsh", "/home/me/.tcshrc or .cshrc, or what it reads, prints it in every command: guard it with `if ("),
        ("/bin/dash", "a file that its login shell /bin/dash reads, or ~/.ssh/rc, prints it: print only where there"),
    ],
)
def test_whose_file_prints_follows_from_the_shell(shell: str, advice: str) -> None:
    answer = Answer("mark")
    received(answer, f"\x1b[2J Welcome\n\nmark 1 begin {shell}:/home/me\n", "and\n\nmark 2 begin\n")
    assert answer.warning.startswith('the login shell there prints "\\x1b[2J Welcome ⏎ and", which was set')
    assert answer.advice.startswith(advice)
    assert "on stdout, which breaks sftp; " in (answer.breaks("sftp") or "")


def test_what_is_printed_on_stderr_alone_breaks_no_protocol() -> None:
    answer = Answer("mark")
    received(answer, "\nmark 1 begin /bin/bash:/root\n", "hi\n\nmark 2 begin\n")
    assert answer.noise == ["hi"]
    assert answer.breaks("sftp") is None


def test_an_answer_to_forced_words_begins_with_its_protocol() -> None:
    assert answered(["state=kept", "", "protocol=3", "state=none"]) == (["protocol=3", "state=none"], ["state=kept"])
    assert answered(["queued", "/nix/store/x"]) == (["queued", "/nix/store/x"], [])
