"""The pages in a real browser, Debian's Chromium: from a file and served, as people use them."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nixherd.overview.document import Difference, Kind, Mend, Overview, Reach, State, Units
from nixherd.overview.page.render import Pages, write
from nixherd.overview.serve import listen
from nixherd.overview.shown import Shown
from tests.overviews import HOSTILE, TAKEN, host, overview

sync_api = pytest.importorskip("playwright.sync_api", reason="`make setup` installs playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="`make setup` installs axe")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
TOLD = {"began": "2026-01-0{}T10:00:00Z", "ended": "2026-01-0{}T10:01:00Z", "outcome": "deployed", "seconds": 60.0}


def fleet(number: int = 12) -> Overview:
    """Some that are right, one that is down, one that differs, one with a hostile name."""
    behind = Difference(Kind.SYSTEM, "it runs 3 commits behind", Mend.DEPLOY, ("nixherd", "deploy", "web02"))
    pending = Difference(
        Kind.REBOOT, "the next boot brings another kernel", Mend.REBOOT, ("nixherd", "reboot", "web02")
    )
    failed = Difference(Kind.UNITS, f"failed: {HOSTILE[0]}.service")
    down = Reach(False, "192.0.2.9", HOSTILE[1], "2026-01-30T12:00:00Z", 86400, "2026-01-30T12:01:00Z")
    return overview(
        hosts=(
            *(host(f"web{each:02}") for each in range(10, 10 + number)),
            host("web02", state=State.DIFFERS, differences=(behind, pending)),
            host(HOSTILE[0], state=State.DIFFERS, differences=(failed,), units=Units((HOSTILE[0], HOSTILE[2]))),
            host("db01", state=State.UNREACHABLE, reach=down, unknown={"reach": HOSTILE[1]}),
        )
    )


def document(made: Overview) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(made.to_json()))
    return found


def histories(made: Overview) -> dict[str, list[dict[str, Any]]]:
    """Each host got a revision on three days."""
    days = [
        {**{name: text.format(day) if isinstance(text, str) else text for name, text in TOLD.items()}, "run": f"r{day}",
         "number": day, "revision": f"{day}" * 40, "operator": HOSTILE[0], "command": "deploy", "source": "proved",
         "after": f"/nix/store/{day}", "changed": True, "exit": day == 2}
        for day in (1, 2, 3)
    ]  # fmt: skip
    return {each.host: days for each in made.hosts}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a context of its own; in the end nothing ran, failed or was asked for that should not."""
    contexts, wrong = list[Any](), list[str]()

    def open_(url: str, **how: Any) -> Any:
        context = chromium.new_context(**how)
        contexts.append(context)
        base = url.split("/pages/")[0] if url.startswith("file:") else "/".join(url.split("/")[:3])

        def route(route: Any) -> None:
            if route.request.url.startswith((base, "data:")):
                route.continue_()
            else:
                wrong.append(f"asked for {route.request.url}")
                route.abort()

        def dismiss(dialog: Any) -> None:
            wrong.append(f"dialog {dialog.message}")
            dialog.dismiss()

        context.route("**/*", route)
        context.set_default_timeout(60000)
        page = context.new_page()
        page.on("dialog", dismiss)
        page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error {error}"))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site") / "pages"
    made = fleet()
    write(place, Pages(document(made), histories(made)))
    return place


@pytest.fixture
def index(directory: Path) -> str:
    return (directory / "index.html").as_uri()


def pictured(page: Any, name: str) -> None:
    """Keep what it looks like, to be looked at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.add_style_tag(content="tbody tr { content-visibility: visible !important; }")  # what is not seen is not drawn
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)


def rows(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "table.hosts tbody tr", "rows => rows.filter(row => row.offsetParent !== null).map(row => row.dataset.host)"
    )
    return found


def violations(page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [f"{each['id']}: {[node['html'][:150] for node in each['nodes'][:2]]}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_readable(opened: Callable[..., Any], index: str, scheme: str, width: int) -> None:
    """For axe-core's reader, without scrolling sideways; a host's page, too."""
    page = opened(index, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    for name in ("index", "host"):
        if name == "host":
            page.locator("table.hosts").get_by_role("link", name="web02").click()
        pictured(page, f"{name}-{scheme}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
    page.locator("a[href$='index.html']").first.click()
    assert page.url == index


def test_filters_and_sorts(opened: Callable[..., Any], index: str) -> None:
    page = opened(index)
    every = rows(page)
    assert len(every) == 15
    page.get_by_role("combobox", name="State").select_option("unreachable")
    assert rows(page) == ["db01"]
    assert page.locator("#count").inner_text().startswith("1 of 15")
    page.get_by_role("combobox", name="State").select_option("")
    page.get_by_role("combobox", name="Differs in").select_option("reboot")
    assert rows(page) == ["web02"]
    page.get_by_role("combobox", name="Differs in").select_option("")
    page.get_by_label("Filter").fill("web1")
    assert rows(page) == [name for name in every if name.startswith("web1")]
    page.get_by_label("Filter").fill("")
    for down in (False, True):
        page.get_by_role("button", name="Host", exact=True).click()
        shown = rows(page)
        assert shown == sorted(shown, key=lambda name: (name != HOSTILE[0], name), reverse=down)
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == ("descending" if down else "ascending")


def test_a_keyboard_is_enough(opened: Callable[..., Any], index: str) -> None:
    page = opened(index)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("web02")
    assert rows(page) == ["web02"]
    for _ in range(30):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "(() => { const style = getComputedStyle(document.activeElement);"
            " return style.outlineStyle + style.boxShadow; })()"
        )
        assert outline != "nonenone", page.evaluate("document.activeElement.outerHTML")[:200]
        if page.evaluate("document.activeElement.textContent") == "web02":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/hosts/web02.html")


def test_the_other_colours_by_a_button(opened: Callable[..., Any], index: str) -> None:
    page = opened(index, color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_it_is_whole_without_scripts(opened: Callable[..., Any], index: str) -> None:
    page = opened(index, java_script_enabled=False)
    text = page.locator("body").inner_text()
    for part in ("web02", "db01", "unreachable", "it runs 3 commits behind", HOSTILE[0]):
        assert part in text
    assert page.locator("#controls").is_hidden()


def test_hostile_texts_are_texts(opened: Callable[..., Any], tmp_path: Path) -> None:
    """`opened` sees what runs, and what the policy had to refuse."""
    place = tmp_path / "pages"
    made = overview(
        fleet=HOSTILE[0],
        operator=HOSTILE[1],
        hosts=tuple(
            host(name, state=State.DIFFERS, units=Units(HOSTILE), differences=(Difference(Kind.UNITS, name),))
            for name in HOSTILE
        ),
    )
    write(place, Pages(document(made), {}, notice=HOSTILE[0]))
    page = opened((place / "index.html").as_uri())
    assert len(rows(page)) == len(HOSTILE)
    assert page.locator("script").count() == 1
    for file in sorted((place / "hosts").iterdir()):
        page.goto(file.as_uri())
        assert page.locator("script").count() == 1
        assert page.locator("h1").count() == 1


def test_served_pages_refresh_and_keep_what_was_chosen(opened: Callable[..., Any]) -> None:
    shown = Shown()
    shown.look(lambda: (document(fleet()), {}))
    serving = listen(shown, "127.0.0.1", 0)
    try:
        page = opened(serving.url)
        page.get_by_label("Filter").fill("web02")
        page.locator("table.hosts").get_by_role("link", name="web02", exact=True).focus()
        more = overview(hosts=(*fleet().hosts, host("web02b")), taken=TAKEN.replace("12:00", "12:01"))
        shown.look(lambda: (document(more), {}))
        page.locator("table.hosts tbody tr").nth(15).wait_for(state="attached")
        assert rows(page) == ["web02", "web02b"]
        assert page.get_by_label("Filter").input_value() == "web02"
        assert page.evaluate("document.activeElement.textContent") == "web02"
        shown.look(_fail)
        page.get_by_text("Looking again failed").wait_for()
        page.locator("table.hosts").get_by_role("link", name="web02", exact=True).click()
        page.locator("h1").wait_for()
    finally:
        serving.close()


def _fail() -> Any:
    from nixherd.base.errors import FleetError

    raise FleetError("fleet.file cannot be read")
