"""The demo page in a browser: ask, watch the boxes appear, swap a crop, draw one, drop a broken
picture."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from browser import open_page, served
from live_server import CALL, CONFIG, colour_of, listening, scripted_model

pytestmark = pytest.mark.browser
HOSTILE = (
    "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script> "
    "\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}"
)
DROP = """async ([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(drop);
}"""


def looks_once(context):
    """One crop, then an answer that tells its mean colour."""
    return (
        CALL if not context.turns else f"<answer>{colour_of(context.turns[0].view.image)}</answer>"
    )


@pytest.fixture
def address(tmp_path):
    with listening(scripted_model(looks_once), tmp_path) as address:
        yield address


def drop(page, name: str, data: bytes):
    page.evaluate(DROP, [name, list(data)])


def ask(page, address: str, picture: Path):
    """Drop a picture and ask; returns the answer."""
    page.goto(address)
    drop(page, picture.name, picture.read_bytes())
    page.get_by_text(f"{picture.name} is ready").wait_for()
    page.get_by_label("Question").fill("Which colour?")
    page.get_by_role("button", name="Ask", exact=True).click()
    return answer_of(page, 0)


def answer_of(page, run: int) -> str:
    found = page.locator(".run").nth(run).locator(".answer")
    found.filter(has_text="nswer").wait_for()
    return found.inner_text()


def boxes(page, picture: str) -> list[list[float]]:
    """Corners of the boxes drawn over a picture, by its id."""
    rects = page.locator(f".frame:has(#{picture}) rect.crop")
    return [
        [float(rects.nth(i).get_attribute(name)) for name in ("x", "y", "width", "height")]
        for i in range(rects.count())
    ]


def test_a_dropped_picture_is_asked_about_and_the_box_appears_on_both_views(page, address, picture):
    assert ask(page, address, picture()).startswith("Answer: (")
    assert boxes(page, "first") == boxes(page, "original")
    # the first view of 400 x 300 at 16 tokens is 112 x 84; the call asks for 56 x 56 of it
    assert boxes(page, "first")[0] == pytest.approx([0, 0, 0.5, 2 / 3])
    assert page.get_by_text(
        re.compile("First view, 112 . 84 pixels, 12 visual tokens")
    ).is_visible()
    assert page.get_by_text(re.compile("Original, 400 . 300 pixels")).is_visible()
    assert all(image.get_attribute("alt") for image in page.locator("img:visible").all())


def test_a_crop_of_the_last_turn_is_said_not_to_be_cut(page, tmp_path, picture):
    model = scripted_model(lambda context: CALL, replace(CONFIG, max_turns=2))
    with listening(model, tmp_path) as address:
        assert ask(page, address, picture()) == "No answer"
    assert page.get_by_text("Crop 2: not cut, as it came with the last turn").is_visible()
    assert len(boxes(page, "first")) == 1


def test_a_question_does_not_wait_for_the_examples(page, address, picture):
    page.route("**/about", lambda route: None)  # it never comes
    assert ask(page, address, picture()).startswith("Answer: (")


def test_a_crop_swapped_for_noise_gives_another_answer_beside_the_first(page, address, picture):
    own = ask(page, address, picture())
    page.get_by_role("group", name="Swap crop 1").get_by_role("button", name="noise").click()
    noise = answer_of(page, 1)
    assert noise != own
    assert all(
        abs(int(part) - 127) < 8 for part in re.findall(r"\d+", noise)
    )  # the mean of uniform noise
    assert page.get_by_role("heading", name="Crop 1: noise").is_visible()
    assert (
        page.get_by_role("status").inner_text()
        == f"{noise}. Before: {own.removeprefix('Answer: ')}."
    )
    assert page.locator("#outcomes li").all_inner_texts() == [
        f"Its own crops: {own.removeprefix('Answer: ')}",
        f"Crop 1: noise: {noise.removeprefix('Answer: ')}\nChanged: before it was "
        f"{own.removeprefix('Answer: ')}",
    ]
    page.locator(".run").first.get_by_role("button", name="Show its boxes").click()
    assert page.locator(".run.selected h3").inner_text() == "Its own crops"


def test_an_answer_that_noise_does_not_change_says_that_the_crop_was_not_used(page, tmp_path):
    def looks_in_vain(context):
        return "<answer>always</answer>" if context.turns else CALL

    with listening(scripted_model(looks_in_vain), tmp_path) as address:
        page.goto(address)
        page.locator("#examples button").first.click()
        page.get_by_role("button", name="Ask", exact=True).click()
        assert answer_of(page, 0) == "Answer: always"
        page.get_by_role("button", name="noise").click()
        page.get_by_text("Unchanged: crop 1 was not used").wait_for()
        right = page.locator("#right")
        assert re.fullmatch(r"Right answer: \S+", right.inner_text()), "the example's"
        beside = page.locator("#outcomes").bounding_box()
        assert beside["y"] < page.locator("#canvas").bounding_box()["y"] + 60


def test_a_new_picture_clears_the_question_about_the_last_one(page, address, picture):
    ask(page, address, picture())
    page.get_by_label("Question").fill("Typed before the picture?")
    drop(page, "second.png", picture(size=(50, 40)).read_bytes())
    page.get_by_text("second.png is ready").wait_for()
    assert page.get_by_label("Question").input_value() == "Typed before the picture?"
    page.get_by_role("button", name="Ask", exact=True).click()
    answer_of(page, 0)
    drop(page, "third.png", picture(size=(60, 40)).read_bytes())
    page.get_by_text("third.png is ready").wait_for()
    assert page.get_by_label("Question").input_value() == ""
    assert not page.locator("#outcomes").is_visible()
    page.locator("#examples button").first.click()
    assert page.get_by_label("Question").input_value() != ""
    drop(page, "fourth.png", picture(size=(70, 40)).read_bytes())
    page.get_by_text("fourth.png is ready").wait_for()
    assert page.get_by_label("Question").input_value() == "", "an example's question is its own"


def test_a_crop_of_ones_own_can_be_dragged(page, address, picture):
    ask(page, address, picture())
    page.get_by_role("button", name=re.compile("^a crop of your own")).click()
    frame = page.locator("#canvas")
    frame.scroll_into_view_if_needed()
    place = frame.bounding_box()
    page.mouse.move(place["x"] + place["width"] * 0.5, place["y"] + place["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.9, place["y"] + place["height"] * 0.9, steps=4)
    page.mouse.up()
    assert page.locator("#canvas rect.own").count() == 1
    page.get_by_role("button", name="Show this instead").click()
    red, green, blue = map(int, re.findall(r"\d+", answer_of(page, 1)))
    assert blue == 0
    assert red == pytest.approx(
        0.7 * 255, abs=4
    )  # red grows with x, green with y, and the box is from 0.5 to 0.9
    assert green == pytest.approx(0.7 * 255, abs=4)
    assert boxes(page, "original")[0] == pytest.approx([0.5, 0.5, 0.4, 0.4], abs=0.01)


def test_a_model_that_does_not_look_can_be_led_to_a_crop(page, tmp_path):
    def looks_where_led(context):
        return f"<answer>{len(context.turns)} crops</answer>"

    with listening(scripted_model(looks_where_led), tmp_path) as address:
        page.goto(address)
        page.locator("#examples button").first.click()
        page.get_by_role("button", name="Ask", exact=True).click()
        assert answer_of(page, 0) == "Answer: 0 crops"
        page.get_by_role("button", name="Begin with a crop of your own").click()
        page.get_by_role("button", name="Show this instead").click()
        assert answer_of(page, 1) == "Answer: 1 crops"
        assert boxes(page, "original")[0] == pytest.approx([0.3, 0.3, 0.4, 0.4])


def test_everything_can_be_done_with_the_keyboard(page, address):
    page.goto(address)
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    page.get_by_label("Question").press("Enter")
    own = answer_of(page, 0)
    page.get_by_role("button", name=re.compile("^a crop of your own")).press("Enter")
    assert page.evaluate("document.activeElement.labels[0].textContent.trim()") == "left"
    for value in ("90", "90", "100", "100"):
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(value)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert answer_of(page, 1) != own
    assert page.get_by_role(
        "heading", name="Crop 1: a crop of your own (90 %, 90 %, 100 %, 100 %)"
    ).is_visible()


def test_a_box_without_area_is_said_and_nothing_is_asked(page, address, picture):
    ask(page, address, picture())
    page.get_by_role("button", name=re.compile("^a crop of your own")).click()
    page.get_by_label("left").fill("80")
    page.get_by_label("right").fill("20")
    page.get_by_role("button", name="Show this instead").click()
    assert (
        page.get_by_role("alert").inner_text()
        == "A crop needs left before right and top above bottom, from 0 to 100."
    )
    assert page.locator(".run").count() == 1


def test_a_broken_picture_is_one_clear_sentence_and_the_page_continues(browser, address, picture):
    with open_page(browser, expected=["400 (Bad Request)"]) as page:
        page.goto(address)
        whole = picture().read_bytes()
        drop(page, "torn.png", whole[: len(whole) // 2])
        page.get_by_role("alert").filter(has_text="torn.png").wait_for()
        assert (
            page.get_by_role("alert").inner_text()
            == "torn.png: the picture is broken: its file is cut off or damaged"
        )
        drop(page, "letter.png", b"Dear reader")
        page.get_by_role("alert").filter(has_text="letter.png").wait_for()
        assert (
            "letter.png: not a picture in one of the formats JPEG, PNG"
            in page.get_by_role("alert").inner_text()
        )
        assert ask(page, address, picture()).startswith("Answer: ")


def test_hostile_texts_stay_texts(page, tmp_path, picture):
    def says(context):
        return (
            f"{HOSTILE} {CALL}"
            if not context.turns
            else f"<answer>{HOSTILE} {'x' * 100_000}</answer>"
        )

    with listening(scripted_model(says), tmp_path / "served") as address:
        page.goto(address)
        drop(page, HOSTILE.replace("/", ""), picture().read_bytes())
        page.get_by_label("Question").fill(HOSTILE)
        page.get_by_role("button", name="Ask", exact=True).click()
        assert answer_of(page, 0).startswith("Answer: <img src=x")
    assert page.title() == "Ask about a picture"
    assert page.locator(".run script, .run img[src=x]").count() == 0
    assert page.locator("pre").nth(1).inner_text().endswith("more characters)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_turns_come_one_by_one_and_can_be_stopped(page, tmp_path):
    gate = threading.Semaphore(1)
    with listening(scripted_model(lambda context: CALL, gate=gate), tmp_path) as address:
        page.goto(address)
        page.locator("#examples button").first.click()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator(".run li").nth(0).wait_for()
        assert page.locator(".run li").count() == 1
        assert len(boxes(page, "first")) == 1
        gate.release()
        page.locator(".run li").nth(1).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        assert not page.get_by_role("button", name="Stop").is_visible()
        gate.release(
            CONFIG.max_turns
        )  # what was being said, and what the server began before it noticed, is told to nobody
        assert page.locator(".run li").count() == 2


@pytest.mark.parametrize("size", [(1600, 20), (20, 1600), (30, 30), (3000, 2000)])
def test_pictures_of_any_shape_fit_the_page(browser, address, picture, size):
    with open_page(browser, viewport={"width": 400, "height": 800}, color_scheme="dark") as page:
        ask(page, address, picture(size=size))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = page.locator("#original").bounding_box()
        drawn = page.locator("#canvas svg.crops").bounding_box()
        assert (drawn["width"], drawn["height"]) == pytest.approx(
            (shown["width"], shown["height"]), abs=3
        )
        assert shown["width"] / shown["height"] == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.slow
def test_the_shipped_checkpoint_answers_and_ctrl_c_ends_it(page):
    with served("serve", "--port", "0") as server:
        page.goto(server.address)
        page.locator("#examples button").first.click()
        page.get_by_role("button", name="Ask", exact=True).click()
        assert re.fullmatch(r"Answer: \w+", answer_of(page, 0))
        assert len(boxes(page, "first")) == 1
        page.get_by_role("button", name="the true place").click()
        answer_of(page, 1)
        assert server.interrupt() == "stopped\n"
        assert server.process.returncode == 0
