"""The page of 1,000 hosts in Chromium: how long until it is loaded, and how long a letter in its filter takes.

Every host has differences, a guest and twenty deployments on record. Medians of the rounds are judged by LIMITS; the
filter's time ends when the browser has laid out what is left.
"""

import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.results import DIRECTORY
from lab.setup import chromium

HOSTS = 1000
DEPLOYMENTS = 20
LIMITS = {"bytes": 3_000_000, "load": 1.5, "filter": 0.1}
"""the size of index.html, and seconds"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
FILTERED = """(text) => {
  const field = document.getElementById("filter"), began = performance.now();
  field.value = text;
  field.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  return (performance.now() - began) / 1000;
}"""


def made() -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """A document, and what was done to each host."""
    from nixherd.overview.document import Difference, Kind, Mend, State
    from tests.overviews import host, overview

    kinds = [Difference(kind, f"what differs in {kind}, in words", Mend.DEPLOY) for kind in Kind]
    hosts = [
        replace(host(f"host{number:04}"), state=[*State][number % 4], differences=tuple(kinds[: number % 4]))
        for number in range(HOSTS)
    ]
    lines = [
        {"began": f"2026-01-{1 + day:02}T10:00:00Z", "after": f"/nix/store/{day}", "revision": f"{day:040x}",
         "outcome": "deployed", "changed": True, "seconds": 10.0 + day, "command": "deploy", "run": str(day),
         "number": day, "operator": "ops@desk", "exit": 0}
        for day in range(DEPLOYMENTS)
    ]  # fmt: skip
    return json.loads(json.dumps(overview(hosts=tuple(hosts)).to_json())), {each.host: lines for each in hosts}


def main(rounds: int) -> int:
    from playwright.sync_api import sync_playwright

    from nixherd.overview.page.render import Pages

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        index = Path(directory) / "index.html"
        index.write_text(Pages(*made()).index(), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium.build(Path(directory)), args=arguments)
        loads, filters = list[float](), list[float]()
        for number in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(index.as_uri())
            loads.append(page.evaluate(LOADED))
            filters.append(page.evaluate(FILTERED, f"{number % 10}"))
            page.close()
        browser.close()
        size = index.stat().st_size
    results = {"bytes": size, "load": statistics.median(loads), "filter": statistics.median(filters)}
    print(f"page of {HOSTS} hosts: {size / 1e6:.2f} MB, loaded in {results['load']:.2f} s, filtered in", end=" ")
    print(f"{results['filter'] * 1000:.0f} ms (medians of {rounds})", flush=True)
    DIRECTORY.mkdir(exist_ok=True)
    document = {**results, "limits": LIMITS, "loads": loads, "filters": filters}
    (DIRECTORY / "page.json").write_text(json.dumps(document, indent=2) + "\n")
    return int(any(results[name] > limit for name, limit in LIMITS.items()))
