"""The report in a real browser, opened from disk: what a person can do with the episodes, and how
soon."""

import re
import sys

import pytest
from browser import open_page, wait_until
from reports import made_up_episode, made_up_evidence, noise_pictures

from lfpc.report import write_report

pytestmark = pytest.mark.browser

HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert(2)">"""
TURNED = "\u202eright to left"
LONG = "\U0001f600" + "word " * 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of two arms: `good` is right but on questions 1 and 2, `poor` is right on question 2
    alone."""
    tmp_path = tmp_path_factory.mktemp("report")
    pictures = noise_pictures(tmp_path / "pictures", 3)
    texts = {3: {"question": HOSTILE, "id": HOSTILE}, 4: {"question": TURNED, "says": LONG}}

    def records(right, **more):
        return [
            made_up_episode(n, pictures[n % 3], correct=right(n), **texts.get(n, {}), **more)
            for n in range(6)
        ]

    found = {
        ("good", "small", "own", 0): records(lambda n: n not in (1, 2)),
        ("good", "small", "noise", 0): records(lambda n: n == 0),
        ("poor", "small", "own", 0): records(lambda n: n == 2),
    }
    return write_report(tmp_path / "out", made_up_evidence(found), title="Made up").parent


def opened(page, folder, fragment="", name="episodes.html"):
    page.goto("about:blank")
    page.goto(f"{(folder / name).as_uri()}#{fragment}")
    if name == "episodes.html":
        page.wait_for_selector("body[data-ready]")
        page.wait_for_selector("article")
    return page


def listed(page):
    return [int(text) for text in re.findall(r"thing (\d)", page.inner_text("#list"))]


def test_an_episode_shows_its_pictures_boxes_replies_and_probes(page, folder):
    opened(page, folder, "arm=good&budget=small&at=q00000")
    assert page.inner_text("article h3") == "Which colour is thing 0?"
    assert page.locator("h4").all_inner_texts() == ["own crops right", "noise right"]
    images = page.locator("article img")
    assert images.count() == 4, "two views, the crop and the noise"
    wait_until(
        page,
        "[...document.querySelectorAll('article img')].every(image => image.complete && "
        "image.naturalWidth > 0)",
    )
    assert all(images.nth(n).get_attribute("alt") for n in range(4))
    assert page.locator("article rect.crop").count() == 2
    frame = page.locator(".frame").first.bounding_box()
    box = page.locator("article rect.crop").first.bounding_box()
    assert box["width"] == pytest.approx(0.1 * frame["width"], abs=5)
    assert "answered" in page.inner_text(".probe >> nth=0")
    assert "IoU 0.04" in page.inner_text(".probe >> nth=0")


def test_filters_and_sorting_and_search_change_the_list(page, folder):
    opened(page, folder, "arm=good&budget=small")
    assert page.inner_text("output") == "6 of 6 episodes (100.0 %)"
    page.select_option("select[name=show]", "wrong")
    assert listed(page) == [1, 2]
    page.select_option("select[name=show]", "all")
    page.select_option("select[name=sort]", "tokens")
    page.check("input[name=descending]")
    assert listed(page) == [5, 2, 1, 0], "questions 3 and 4 have other texts"
    page.fill("input[name=q]", "THING 2")
    assert listed(page) == [2]
    page.select_option("select[name=category]", "odd")
    assert "No such episode." in page.inner_text("#episode")


def test_keys_step_through_and_the_address_leads_back(page, folder):
    opened(page, folder, "arm=poor&budget=small&show=wrong")
    assert page.inner_text("article h3") == "Which colour is thing 0?"
    page.keyboard.press("ArrowRight")
    wait_until(page, "document.querySelector('article h3').textContent.includes('thing 1')")
    page.keyboard.press("k")
    wait_until(page, "document.querySelector('article h3').textContent.includes('thing 0')")
    page.keyboard.press("j")
    wait_until(page, "document.querySelector('article h3').textContent.includes('thing 1')")
    address = page.url
    assert "at=q00001" in address
    opened(page, folder, address.split("#")[1])
    assert page.inner_text("article h3") == "Which colour is thing 1?"
    assert "poor, small" in page.inner_text("article .facts")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("input[name=q]") == "jk", "letters in the search are letters"


def test_two_conditions_beside_each_other_show_where_they_differ(page, folder):
    opened(page, folder, "arm=good&budget=small&with-arm=poor&with-budget=small&show=lost")
    assert listed(page) == [2], "right only for the other"
    assert page.locator("article").count() == 2
    assert [text.split()[-1] for text in page.locator("h4").all_inner_texts() if "own" in text] == [
        "wrong",
        "right",
    ]
    page.select_option("select[name=show]", "gained")
    assert page.inner_text("output").startswith("4 of 6")
    page.select_option("select[name=with]", "")
    assert page.input_value("select[name=show]") == "all", "nothing to compare with"


def test_hostile_texts_stay_texts_in_the_browser(page, folder):
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    opened(page, folder, "arm=good&budget=small")
    page.click("#list li:nth-child(4) a")
    wait_until(page, "document.querySelector('article h3').textContent.includes('alert')")
    assert page.inner_text("article h3") == HOSTILE
    assert page.locator("article h3 img").count() == 0
    page.keyboard.press("j")
    wait_until(page, "document.querySelector('article h3').textContent.includes('right to left')")
    assert "right answer red" in page.inner_text("article .facts >> nth=0"), (
        "the turned text ends with its own element"
    )
    assert page.locator("pre").nth(1).inner_text().endswith("more characters)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("number", "counted"),
    [
        ("#table-accuracy tr:nth-child(1) td:nth-child(3) a", "4 of 6"),  # accuracy
        ("#table-accuracy tr:nth-child(1) td:nth-child(4) a", "6 of 6"),  # shows a crop
        ("#table-accuracy tr:nth-child(1) td:nth-child(5) a", "3 of 6"),  # lost under noise
        ("#table-accuracy tr:nth-child(2) td:nth-child(3) a", "1 of 6"),
        ("#figure-accuracy a[aria-label^='poor']", "1 of 6"),
        (".tile:nth-child(1) a", "4 of 6"),
        (".tile:nth-child(2) a", "3 of 6"),
    ],
)
def test_a_number_leads_to_the_episodes_that_it_counts(page, folder, number, counted):
    opened(page, folder, name="index.html")
    page.click(number)
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("output").startswith(counted)


def test_the_report_opens_with_the_verdict_and_an_episode_that_shows_it(page, folder):
    opened(page, folder, name="index.html")
    assert page.inner_text("#verdict").endswith("good, small")
    assert page.locator(".tile").count() == 3
    shown = page.locator(".example img")
    assert shown.count() == 3, "the first view, the crop, the noise"
    assert page.inner_text("#example") == "The answer stays without the crop", "6 are too few"
    page.get_by_role("link", name="Open the episode").click()
    page.wait_for_selector("article")
    assert page.locator("h4").all_inner_texts() == ["own crops right", "noise right"]
    assert page.locator(".chip").all_inner_texts()[1] == "answer unchanged"


def test_a_chip_says_what_an_answer_rests_on_and_pictures_stay_in_view(page, folder):
    opened(page, folder, "arm=good&budget=small&at=q00001")
    assert page.locator(".chip").all_inner_texts() == [
        "pointed right, read wrong",
        "answer unchanged",
    ]
    page.set_viewport_size({"width": 1280, "height": 420})
    page.mouse.wheel(0, 2000)
    wait_until(page, "scrollY > 50")
    assert page.locator(".views .frame").first.bounding_box()["y"] >= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "episodes.html"])
def test_narrow_screens_need_no_sideways_scrolling(browser, folder, scheme, name):
    with open_page(browser, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        opened(page, folder, name=name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(browser, folder, scheme):
    with open_page(browser, color_scheme=scheme) as page:
        opened(page, folder)
        read = (
            "name => getComputedStyle(document.documentElement).getPropertyValue('--' + "
            "name).trim()"
        )
        colors = {
            name: page.evaluate(read, name)
            for name in ("ground", "card", "ink", "quiet", "link", "good", "bad")
        }
    for text in ("ink", "quiet", "link", "good", "bad"):
        for behind in ("ground", "card"):
            assert contrast(colors[text], colors[behind]) >= 4.5, (text, behind)


def contrast(a, b):
    """Ratio of two colours as WCAG 2 defines it."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


MARK_ARTICLE = """new MutationObserver((_, observer) => {
  if (document.querySelector("article")) {
    observer.disconnect();
    performance.mark(document.getElementById("list").children.length ? "late" : "early");
  }
}).observe(document, { childList: true, subtree: true });"""
"""Marks the time of the first episode: before the list of all episodes, or after."""


@pytest.mark.slow
@pytest.mark.long
def test_a_hundred_thousand_episodes_are_painted_within_a_second(browser, tmp_path):
    pictures = noise_pictures(tmp_path / "pictures", 20)
    many = [made_up_episode(n, pictures[n % 20], correct=n % 3 == 0) for n in range(100_000)]
    evidence = made_up_evidence({("a", "small", "own", 0): many})
    folder = write_report(tmp_path / "out", evidence, title="Many").parent
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    for name in ("index.html", "episodes.html"):
        with open_page(browser) as page:
            page.add_init_script(MARK_ARTICLE)
            page.goto((folder / name).as_uri())
            wait_until(page, f"{paint} > 0")
            assert page.evaluate(paint) < 1_000, name
            if name == "episodes.html":
                page.wait_for_selector("body[data-ready]")
                assert page.evaluate("performance.getEntriesByName('early')[0].startTime") < 1_000
                assert page.inner_text("output").startswith("100,000 of 100,000 episodes")


@pytest.mark.long
@pytest.mark.slow
def test_ten_thousand_episodes_paint_within_a_second(browser, tmp_path, capsys):
    pictures = noise_pictures(tmp_path / "pictures", 20)
    records = {
        (arm, "small", probe, 0): [
            made_up_episode(n, pictures[n % 20], correct=n % 3 == 0) for n in range(5_000)
        ]
        for arm in ("a", "b")
        for probe in ("own", "noise")
    }
    folder = write_report(tmp_path / "out", made_up_evidence(records), title="Many").parent
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    times = {}
    for name in ("index.html", "episodes.html"):
        with open_page(browser, viewport={"width": 1280, "height": 800}) as page:
            page.goto((folder / name).as_uri())
            wait_until(
                page,
                f"performance.getEntriesByName('first-contentful-paint').length && {paint} > 0",
            )
            times[f"{name} painted"] = page.evaluate(paint)
            if name == "episodes.html":
                page.wait_for_selector("body[data-ready]")
                times["first episode shown"] = page.evaluate("performance.now()")
                started = page.evaluate("performance.now()")
                page.select_option("select[name=sort]", "iou")
                times["sorted"] = page.evaluate("performance.now()") - started
    with capsys.disabled():
        sys.stderr.write(
            "\n10,000 episodes: "
            + ", ".join(f"{name} {value:.0f} ms" for name, value in times.items())
            + "\n"
        )
    assert max(times.values()) < 1_000
