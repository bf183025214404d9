"""Every page: valid HTML, no finding of axe-core in light and dark, nothing wider than 320 px."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import open_page, served
from live_server import listening, scripted_model
from PIL import Image
from reports import made_up_episode, made_up_evidence, noise_pictures
from test_serve_browser import answer_of, ask, looks_once

from lfpc import cli
from lfpc.boxes import Box
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.records import failed_record
from lfpc.report import write_report
from lfpc.report.episode_page import write_episode_page
from lfpc.report.evidence import DataFacts
from lfpc.report.selection_page import write_selection_page
from lfpc.samples import Sample, write_samples
from lfpc.selection.run import Level, Selection

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

axe_playwright = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-core is not installed: pip install 'lfpc[dev]'",
)
html5lib = pytest.importorskip(
    "html5lib", reason="html5lib is not installed: pip install 'lfpc[dev]'"
)
pytestmark = pytest.mark.browser
NAMES = ("report", "episodes", "pair", "alone", "data", "selection", "ask", "swapped", "annotate")
Opener = Callable[["Page"], None]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Iterator[dict[str, Opener]]:
    """Functions that open a page with all that it can show, by the page's name."""
    folder = tmp_path_factory.mktemp("pages")
    pictures = noise_pictures(folder / "pictures", 3)
    records = [made_up_episode(n, pictures[n % 3], correct=n % 2 == 0) for n in range(6)]
    others = [made_up_episode(n, pictures[n % 3], correct=n % 2 == 1) for n in range(6)]
    arms = (("good", "own", records), ("good", "noise", others), ("poor", "own", others))
    others[5] = failed_record(others[5].sample, "the server is gone")
    rows = [{"step": n, "reward": n / 2, "accuracy": n / 3, "zeal": n} for n in (1, 2, 3)]
    found = {(arm, "small", probe, 0): some for arm, probe, some in arms}
    evidence = made_up_evidence(
        found,
        curves={"good": rows, "poor": rows[:2]},
        data={"train": DataFacts(4, {"16": 3, "64": 1}, {"a": 4}, [0.01, 0.25])},
        gains={("good", "small", 0): {"q00000": {"noise": 0.5, "truth": -0.1}}},
    )
    report = write_report(folder / "report", evidence, title="Made up").parent
    fields = {"question": "Which?", "options": ("K", "L"), "boxes": ((Box(0.2, 0.2, 0.5, 0.5),),)}
    samples = [
        Sample(id=f"s{n}", image=path, answer="A", **fields) for n, path in enumerate(pictures)
    ]
    write_samples(samples, folder / "data")
    ladder = (Level(64, 4, 3, 3, 0, 64, 3), Level(16, 4, 2, 3, 1, 16, 2))
    chosen = write_selection_page(folder / "selection", Selection([], {}, 4, 1, 0, ladder))
    check = folder / "check" / "index.html"
    cli.main(["data", "check", str(folder / "data"), "--page", str(check.parent)])
    photo = folder / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(photo)

    alone = write_episode_page(
        folder / "alone", records[0], original_look(CropRules(min_tokens=1)), model="made up"
    )
    browser_page = f"{(report / 'episodes.html').as_uri()}#at=q00000"

    def at(address: str, wait: str) -> Opener:
        def opens(page: "Page") -> None:
            page.goto(address)
            page.wait_for_selector(wait)

        return opens

    def pair(page: "Page") -> None:
        at(browser_page, "article img")(page)
        page.select_option("select[name=with]", index=2)
        page.wait_for_selector("article + article")

    with ExitStack() as stack:
        asking = stack.enter_context(listening(scripted_model(looks_once), folder / "served"))
        annotating = stack.enter_context(served("annotate", str(folder / "data"))).address

        def swapped(page: "Page") -> None:
            ask(page, asking, photo)
            page.get_by_role("button", name="noise").click()
            answer_of(page, 1)
            page.get_by_role("button", name="a crop of your own").first.click()

        yield {
            "report": at((report / "index.html").as_uri(), "table"),
            "episodes": at(browser_page, "article img"),
            "pair": pair,
            "alone": at(alone.as_uri(), "article img"),
            "data": at(check.as_uri(), "h1"),
            "selection": at(chosen.as_uri(), ".fault"),
            "ask": lambda page: ask(page, asking, photo),
            "swapped": swapped,
            "annotate": at(f"{annotating}/#1", "#targets li"),
        }


def html_of(page: "Page") -> str:
    """The page as it was written, before its scripts ran."""
    if page.url.startswith("file:"):
        return Path(page.evaluate("decodeURIComponent(location.pathname)")).read_text("utf-8")
    return page.request.get(page.url).text()


@pytest.mark.parametrize("name", NAMES)
def test_html_is_valid_before_and_after_its_scripts(page, pages, name):
    pages[name](page)
    html5lib.HTMLParser(strict=True).parse(html_of(page))
    written = page.evaluate("document.documentElement.outerHTML")
    html5lib.HTMLParser(strict=True).parse(f"<!doctype html>{written}")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: "Browser", pages, name, scheme):
    with open_page(browser, color_scheme=scheme, viewport={"width": 1280, "height": 800}) as page:
        pages[name](page)
        found = axe_playwright.Axe().run(page, options={"preload": False})
    assert found.violations_count == 0, found.generate_report()


def test_the_open_episode_is_the_current_one_of_the_list(page, pages):
    pages["episodes"](page)
    page.keyboard.press("j")
    page.wait_for_selector("article:has-text('thing 1')")
    assert page.locator("#list a").evaluate_all(
        "links => links.map((one) => one.getAttribute('aria-current'))"
    ) == [None, "true", None, None, None, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_narrow_screen(browser: "Browser", pages, name):
    with open_page(browser, viewport={"width": 320, "height": 640}) as page:
        pages[name](page)
        wide = page.evaluate(
            """[...document.querySelectorAll("body *")]
              .filter((one) => one.getBoundingClientRect().right > 320.5 && !one.closest(".scroll"))
              .map((one) => one.outerHTML.slice(0, 120))"""
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, "\n".join(wide[:8])
