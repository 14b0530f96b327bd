"""pyinfra runs this before it reads its options: what would be a traceback there, or nothing at all, is said."""

from nixherd.pyinfra_glue.cli import check_command_line

check_command_line()
