"""How a plain user becomes root on a machine: the command lines of sudo and doas, and what they say. Pure.

sudo takes a password from stdin; doas asks a terminal alone, so that one who is asked by it cannot be helped.
Sources: sudo(8), doas(1) and doas.conf(5) of OpenDoas, their messages as they print them.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote


class Become(StrEnum):
    """The program that lets a user be root."""

    SUDO = "sudo"
    DOAS = "doas"

    @property
    def other(self) -> "Become":
        return Become.DOAS if self is Become.SUDO else Become.SUDO

    @property
    def without_question(self) -> str:
        """What stands before a command that is run as root, or fails where a password is asked for."""
        # doas keeps the user's HOME where a rule says keepenv, and root would write there
        return "sudo -n -H" if self is Become.SUDO else "doas -n env HOME=/root"

    def state(self, say: str = "echo") -> str:
        """A script that prints `root`, `free`, `asks`, or `none` where the program is missing; `say` prints a word."""
        return (
            "uid=; [ ! -r /proc/self/status ] || while read -r name _ value _; do "
            "case $name in Uid:) uid=$value; break ;; esac; done "
            '</proc/self/status; if [ "${uid:-$(id -u)}" = 0 ]; then '
            f"{say} root; elif ! command -v {self} >/dev/null 2>&1; then {say} none; "
            f"elif {self} -n true >/dev/null 2>&1; then {say} free; else {say} asks; fi"
        )

    def remedy(self, state: str, user: str) -> str:
        """What is wrong in a state where nobody becomes root, and what to write."""
        if state == "none":
            enable = f"security.{self}.enable = true"
            return f'{self} is not there; write become = "{self.other}" for it, or deploy {enable} first'
        if self is Become.SUDO:
            return (
                "sudo asks for a password there; give it on stdin with --data sudo_password=stdin "
                "(nixherd deploy --ask-sudo-password), or use sudoPasswordless"
            )
        rule = f'security.doas.extraRules = [ {{ users = [ "{user}" ]; noPass = true; }} ]'
        return (
            f"doas does not let {user} be root without a password, which it reads from a terminal alone; write {rule}"
        )


@dataclass(frozen=True)
class Root:
    """Root's rights on a machine; `password` is what sudo asks for there, None where it does not."""

    by: Become = Become.SUDO
    password: str | None = field(default=None, repr=False)

    def program(self, name: str) -> str:
        """The command line that starts this program as root. What sudo says is not part of the program's words."""
        if self.password is None:
            return f"{self.by.without_question} {name}"
        return f"sudo -S -k --prompt= -H {name}"

    def shell(self, script: str, stdin: str | None) -> tuple[str, str | None]:
        """The script as root, and its stdin: of it sudo reads the first line, where it asks."""
        if self.password is None:
            return f"{self.by.without_question} sh -c {quote(script)}", stdin
        return f"sudo -S -k -H -p '' sh -c {quote(script)}", f"{self.password}\n{stdin or ''}"


REFUSED = re.compile(
    r"a (password|terminal) is required|is not (in the sudoers file|allowed to )|incorrect password"
    r"|\b(sudo|doas): (command )?not found"
    r"|^doas: (Authentication (required|failed)|Operation not permitted|a tty is required|doas is not enabled)",
    re.MULTILINE,
)
"""what they say, or the shell, where nothing was run"""
