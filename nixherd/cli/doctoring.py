"""`nixherd vm doctor`."""

from dataclasses import asdict

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import console, show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.display import one_line
from nixherd.exit_codes import Exit
from nixherd.proxmox.doctor import Verdict, examine

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red", Verdict.UNKNOWN: "magenta"}


@click.command()
@click.option("--strict", is_flag=True, help="What is unknown counts as failed.")
@json_option
@pass_front
def doctor(front: Front, strict: bool) -> None:
    """Look whether the hypervisor refuses by itself what the guard would, and fits the definitions. Only GETs are sent.

    What the token may not read is unknown, never fine.
    """
    findings = examine(front.client, front.fleet)
    if wants_json(front.as_json):
        show_json([asdict(each) for each in findings])
    else:
        screen = console()
        for each in findings:
            remedy = f"; {each.remedy}" if each.remedy else ""
            screen.print(f"{each.verdict:8}", style=_STYLES[each.verdict], end="")
            screen.print(one_line(f" {each.check:12}{each.found}{remedy}"), soft_wrap=True)
    bad = {Verdict.FAILED, *((Verdict.UNKNOWN,) if strict else ())}
    if any(each.verdict in bad for each in findings):
        raise click.exceptions.Exit(int(Exit.FAILED))


COMMANDS = (doctor,)
