"""The annotation page as a person uses it: in Chromium, with a server in a process of its own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Served, open_page, served
from chat_server import ChatServer
from PIL import Image, ImageDraw
from reports import write_run

from lfpc.boxes import Box, coverage
from lfpc.boxing.decisions import boxing_of
from lfpc.dialogue import Crop
from lfpc.records import EpisodeRecord, TurnRecord
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.storage.runs import Kind

pytestmark = pytest.mark.browser
pytest.importorskip("starlette", reason="the extra `web` is not installed: pip install 'lfpc[web]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'lfpc[dev]'"
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (1600, 1000)
HOSTILE = (
    "<img src=x onerror=\"document.title='broken in'\"><script>document.title='broken "
    "in'</script>\u202e😀 {{7*7}}"
)
NAMES = (
    "draw",
    "nest",
    "refuse",
    "undo",
    "keys",
    "decide",
    "hostile",
    "boxed",
    "mouse",
    "gone",
    "broken",
)


def samples_folder(folder: Path) -> Path:
    picture = Image.new("RGB", SIZE, "#8899aa")
    ImageDraw.Draw(picture).rectangle((900, 500, 1000, 560), fill="white")
    folder.mkdir(exist_ok=True)
    picture.save(folder / "picture.png")
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:-200])
    fields = {
        "hostile": {
            "id": HOSTILE,
            "question": HOSTILE,
            "answer": HOSTILE + "x" * 100_000,
            "options": (HOSTILE, "مرحبا"),
            "source": HOSTILE,
        },
        "boxed": {"boxes": ((Box(0.5, 0.5, 0.6, 0.6),),)},
        "gone": {"image": folder / "gone.png"},
        "broken": {"image": folder / "broken.png", "boxes": ((Box(0.5, 0.5, 0.6, 0.6),),)},
    }
    write_samples(
        [
            Sample(
                **{
                    "id": name,
                    "image": folder / "picture.png",
                    "question": f"What is at {name}?",
                    "answer": "K",
                    **fields.get(name, {}),
                }
            )
            for name in NAMES
        ],
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples_folder(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served("annotate", str(folder)) as started:
        yield started


@pytest.fixture
def at(server: Served, browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """Opens the page at a sample by its name."""
    openers = []

    def go(name: str, **options: object) -> "Page":
        opener = open_page(
            browser,
            expected=["Failed to load resource"],
            **{"viewport": {"width": 1280, "height": 800}, **options},
        )
        openers.append(opener)
        page = opener.__enter__()
        page.goto(f"{server.address}/#{NAMES.index(name) + 1}")
        opened(page)
        return page

    yield go
    for opener in openers:
        opener.__exit__(None, None, None)


def settled(page: "Page") -> None:
    """Every change is on disk."""
    playwright.expect(page.locator("#saved")).to_have_text("Saved")


def opened(page: "Page") -> None:
    """The picture is there, at rest."""
    settled(page)
    at_rest(page)  # the zoom to the whole picture is an animation


def at_rest(page: "Page") -> None:
    """The page looks the same for three pictures."""
    ends = time.monotonic() + 15
    shots = [page.screenshot()]
    while len(shots) < 3 or len(set(shots[-3:])) > 1:
        assert time.monotonic() < ends, "the page does not come to rest"
        page.wait_for_timeout(50)
        shots.append(page.screenshot())


def drag(
    page: "Page", start: tuple[float, float], end: tuple[float, float], *, drop: bool = True
) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=3)
    page.mouse.move(*end, steps=3)
    if drop:
        page.mouse.up()


def status(page: "Page") -> str:
    return page.locator("#status").inner_text()


def stored(folder: Path, name: str) -> Sample:
    return read_samples(folder)[NAMES.index(name)]


def pixels(sample: Sample, t: int = 0, b: int = 0) -> tuple[int, int, int, int]:
    return sample.boxes[t][b].to_pixels(SIZE)


def test_a_box_that_is_drawn_is_in_the_file_where_it_was_drawn(at, folder):
    page = at("draw")
    # The stage is 947 pixels wide here, so 1600 pixels of the picture are shown at 0.59.
    stage = page.locator("#stage").bounding_box()
    scale = stage["width"] / SIZE[0]
    top = stage["height"] / 2 - SIZE[1] * scale / 2
    drag(page, (900 * scale, top + 500 * scale), (1000 * scale, top + 560 * scale))
    settled(page)
    assert status(page).startswith("Target 1, B1: ")
    assert pixels(stored(folder, "draw")) == pytest.approx((900, 500, 1000, 560), abs=2)
    page.reload()
    opened(page)
    assert page.locator("#targets button").all_inner_texts() == ["B1"]


def test_boxes_nest_in_whatever_order_they_are_drawn_and_targets_are_apart(at, folder):
    page = at("nest")
    drag(page, (400, 350), (460, 400))
    drag(page, (300, 250), (560, 500))  # around B1: B2
    drag(page, (350, 300), (510, 450))  # between them
    page.keyboard.press("n")
    drag(page, (650, 350), (700, 400))
    settled(page)
    sample = stored(folder, "nest")
    assert [len(nested) for nested in sample.boxes] == [3, 1]
    tight, middle, wide = sample.boxes[0]
    assert coverage(middle, tight) == coverage(wide, middle) == 1
    assert page.locator("#targets li").count() == 2


def test_a_box_that_is_not_nested_is_shown_as_refused_while_it_is_drawn_and_is_not_kept(at, folder):
    page = at("refuse")
    drag(page, (400, 350), (460, 400))
    drag(page, (430, 380), (560, 520), drop=False)
    assert page.locator("#overlay .refused").count() == 1
    assert (
        page.locator("#hint").inner_text()
        == "not nested: it has to lie inside B1, or contain all of it"
    )
    page.mouse.up()
    assert status(page) == "Refused: not nested: it has to lie inside B1, or contain all of it"
    settled(page)
    assert [len(nested) for nested in stored(folder, "refuse").boxes] == [1]
    page.keyboard.press("g")
    drag(page, (440, 350), (900, 350))  # B1's upper edge cannot be dragged out of B2
    settled(page)
    inner, outer = stored(folder, "refuse").boxes[0]
    assert coverage(outer, inner) == 1


def test_undo_and_redo_go_through_every_change(at, folder):
    page = at("undo")
    drag(page, (400, 350), (460, 400))
    for key in (
        "g",
        "ArrowRight",
        "x",
        "Escape",
        "z",
        "z",
        "z",
    ):  # X puts the cursor into the note, Esc leaves it
        page.keyboard.press(key)
    settled(page)
    assert [len(nested) for nested in stored(folder, "undo").boxes] == [1]
    assert not boxing_of(stored(folder, "undo")).flagged
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert status(page) == "Nothing to undo"
    settled(page)
    assert stored(folder, "undo").boxes == ()
    for _ in range(4):
        page.keyboard.press("y")
    settled(page)
    assert [len(nested) for nested in stored(folder, "undo").boxes] == [2]
    assert boxing_of(stored(folder, "undo")).flagged


def test_keyboard_alone_draws_nests_moves_resizes_and_continues(at, folder):
    page = at("keys")
    page.keyboard.press("b")
    settled(page)
    start = pixels(stored(folder, "keys"))
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Control+ArrowUp"):
        page.keyboard.press(key)
    settled(page)
    # An arrow key is 4 pixels of the screen: 4 / (947 / 1600) = 6.8 of the picture.
    x0, y0, x1, y1 = (
        now - before for now, before in zip(pixels(stored(folder, "keys")), start, strict=True)
    )
    assert (x0, y0, x1, y1) == pytest.approx((6.8, 0, 13.5, 6.8), abs=1.6)
    page.keyboard.press("g")
    page.keyboard.press("[")
    for _ in range(60):
        page.keyboard.press("ArrowLeft")  # as far as B2 allows
    assert "Stopped" in status(page)
    settled(page)
    inner, outer = stored(folder, "keys").boxes[0]
    assert inner.x0 == pytest.approx(outer.x0, abs=1e-9)
    assert coverage(outer, inner) == pytest.approx(1)
    page.keyboard.press("n")
    page.keyboard.press("b")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    settled(page)
    assert boxing_of(stored(folder, "keys")).state == "done"
    assert [len(nested) for nested in stored(folder, "keys").boxes] == [2]
    assert page.url.endswith(f"#{NAMES.index('keys') + 2}")


def corner_of_box(page: "Page") -> tuple[float, float, float]:
    """x, y and width of the first box on the screen."""
    at_rest(page)
    box = page.locator("#overlay .line").first.bounding_box()
    return box["x"], box["y"], box["width"]


def test_the_picture_moves_and_zooms_without_drawing(at, folder):
    page = at("boxed")
    x, y, width = corner_of_box(page)
    page.mouse.move(470, 400)
    page.mouse.wheel(0, -300)
    zoomed_x, zoomed_y, zoomed = corner_of_box(page)
    assert zoomed > 1.1 * width
    page.mouse.down(button="right")
    page.mouse.move(520, 430, steps=4)
    page.mouse.up(button="right")
    assert corner_of_box(page)[:2] == pytest.approx((zoomed_x + 50, zoomed_y + 30), abs=2)
    page.keyboard.down(" ")
    drag(page, (520, 430), (470, 400))
    page.keyboard.up(" ")
    assert corner_of_box(page)[:2] == pytest.approx((zoomed_x, zoomed_y), abs=2)
    page.keyboard.press("0")
    assert corner_of_box(page) == pytest.approx((x, y, width), abs=2)
    assert len(stored(folder, "boxed").boxes[0]) == 1


def test_edges_and_corners_are_dragged_and_a_click_selects(at, folder):
    page = at("mouse")
    drag(page, (400, 350), (480, 420))
    drag(page, (300, 250), (600, 550))
    settled(page)
    before = pixels(stored(folder, "mouse"), b=1)
    scale = SIZE[0] / page.locator("#stage").bounding_box()["width"]
    drag(page, (600, 550), (630, 560))  # the lower right corner of B2
    settled(page)
    after = pixels(stored(folder, "mouse"), b=1)
    assert after == pytest.approx(
        (before[0], before[1], before[2] + 30 * scale, before[3] + 10 * scale), abs=2
    )
    drag(page, (300, 330), (320, 340))  # a place on its left edge moves all of it
    settled(page)
    assert pixels(stored(folder, "mouse"), b=1) == pytest.approx(
        (
            after[0] + 20 * scale,
            after[1] + 10 * scale,
            after[2] + 20 * scale,
            after[3] + 10 * scale,
        ),
        abs=2,
    )
    page.mouse.click(440, 380)
    assert status(page).startswith("Target 1, B1")
    page.mouse.click(560, 500)
    assert status(page).startswith("Target 1, B2")
    page.mouse.click(880, 400)
    assert page.locator("#overlay .chosen").count() == 0
    assert [len(nested) for nested in stored(folder, "mouse").boxes] == [2]


def test_every_control_is_reached_with_tab_and_has_a_name(at):
    page = at("draw")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    for control in (
        "undo",
        "redo",
        "add",
        "grow",
        "target",
        "remove",
        "done",
        "skip",
        "flag",
        "back",
        "next",
        "keys",
        "filter",
        "list",
    ):
        assert control in seen
    nameless = (
        "[...document.querySelectorAll('button, input, select')].filter(e => !(e.innerText || "
        "e.ariaLabel || e.labels?.length)).length"
    )
    assert page.evaluate(nameless) == 0
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_decisions_are_kept_and_counted(at, folder):
    page = at("decide")
    page.keyboard.press("Enter")
    assert status(page) == "No box yet: draw one, or skip this picture with S"
    page.keyboard.press("x")
    page.keyboard.type("too dark 😀 <b>")
    page.keyboard.press("Enter")
    page.keyboard.press("s")
    settled(page)
    boxing = boxing_of(stored(folder, "decide"))
    assert (boxing.state, boxing.flagged, boxing.note) == ("skipped", True, "too dark 😀 <b>")
    assert "1 skipped, " in page.locator("#progress").inner_text()
    page.select_option("#filter", "flagged")
    assert any(
        "What is at decide?" in line for line in page.locator("#list option").all_inner_texts()
    )


def test_hostile_text_is_shown_as_text_and_runs_nothing(at, folder):
    page = at("hostile")
    assert page.locator("#question").inner_text().startswith("<img src=x onerror=")
    assert page.locator("#answer").inner_text().endswith("x" * 100)
    assert page.title().startswith("Boxes: ")
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("b")
    settled(page)
    assert len(stored(folder, "hostile").boxes) == 1
    assert stored(folder, "hostile").question == HOSTILE


def test_boxes_of_the_data_are_a_proposal_to_check_and_mend(at, folder):
    page = at("boxed")
    assert status(page) == "These boxes were in the data: check them, then press Enter"
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    settled(page)
    sample = stored(folder, "boxed")
    assert sample.boxes[0][0].y1 > 0.6
    assert boxing_of(sample).state == "done"


def test_a_picture_that_is_gone_is_named_and_can_be_skipped(at, folder):
    page = at("gone")
    assert "no such picture" in status(page)
    page.keyboard.press("b")
    page.keyboard.press("s")
    settled(page)
    assert boxing_of(stored(folder, "gone")).state == "skipped"


def test_a_broken_picture_is_named_and_its_boxes_cannot_be_done_unseen(at, folder):
    page = at("broken")
    assert "broken.png: not a readable picture (" in status(page)
    page.keyboard.press("]")
    assert status(page) == "Target 1, B1"
    page.keyboard.press("Enter")
    assert status(page).startswith("Not done: ")
    assert "broken.png: not a readable picture (" in status(page)
    settled(page)
    assert boxing_of(stored(folder, "broken")).state == "todo"


def test_keys_mark_no_sample_that_is_not_shown(at, folder):
    page = at("boxed")
    before = stored(folder, "boxed")
    failing = f"**/api/samples/{NAMES.index('boxed') + 1}"
    page.route(failing, lambda route: route.fulfill(status=500, json={"problem": "out of order"}))
    page.keyboard.press("k")
    playwright.expect(page.locator("#status")).to_have_text("out of order")
    assert page.locator("#question").inner_text() == ""
    for key in ("Enter", "x", "s", "b", "Delete", "z", "]"):
        page.keyboard.press(key)
    settled(page)
    assert stored(folder, "boxed") == before
    page.keyboard.press("j")
    playwright.expect(page.locator("#question")).to_have_text("What is at boxed?")
    page.keyboard.press("x")
    settled(page)
    assert boxing_of(stored(folder, "boxed")).flagged != boxing_of(before).flagged


def test_nested_boxes_stay_nested_whatever_edge_is_moved_how_far(at):
    law = """async () => {
      const { contains, moved, added, grown, fromCorners } = await import("/static/boxes.js");
      let seed = 7;
      const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
      for (let n = 0; n < 3000; n++) {
        const side = () => 1 + Math.floor(random() * 900);
        const size = { width: side(), height: side() };
        let targets = [];
        for (let k = 0; k < 3; k++) {
          const box = fromCorners([random(), random()], [random(), random()], size);
          const result = box && added(targets, 0, box);
          if (result && !result.refusal) targets = result.targets;
        }
        if (targets.length && !contains(targets[0].at(-1), grown(targets[0], size))) {
          const wider = added(targets, 0, grown(targets[0], size));
          if (wider.refusal) return `refused its own growth: ${JSON.stringify(targets)}`;
          targets = wider.targets;
        }
        for (let k = 0; k < 5 && targets.length; k++) {
          const at = { t: 0, b: Math.floor(random() * targets[0].length) };
          const edges = [0, 1, 2, 3].map(() => random() < 0.5);
          const box = moved(targets, at, edges, random() * 2 - 1, random() * 2 - 1, size).box;
          targets = [targets[0].with(at.b, box)];
          const inside = (low, high) => 0 <= low && low < high && high <= 1;
          const whole = targets[0].every(([x0, y0, x1, y1]) => inside(x0, x1) && inside(y0, y1));
          if (!whole || !targets[0].every((one, b) => b === 0 || contains(one, targets[0][b - 1])))
            return JSON.stringify({ size, targets, at, edges });
        }
      }
      return "nested";
    }"""
    assert at("draw").evaluate(law) == "nested"


def test_a_killed_server_loses_nothing_and_the_open_page_continues(browser, tmp_path):
    folder = samples_folder(tmp_path / "samples")
    with open_page(
        browser,
        expected=["ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE"],
        viewport={"width": 1280, "height": 800},
    ) as page:
        with served("annotate", str(folder)) as first:
            page.goto(first.address)
            opened(page)
            page.keyboard.press("b")
            settled(page)
            first.kill()
            page.keyboard.press("g")
            playwright.expect(page.locator("#saved")).to_contain_text("the server does not respond")
            page.keyboard.press("g")
            assert [len(nested) for nested in stored(folder, "draw").boxes] == [1]
        with served("annotate", str(folder)) as second:
            assert second.address == first.address
            playwright.expect(page.locator("#saved")).to_have_text("Saved")
            assert [len(nested) for nested in stored(folder, "draw").boxes] == [3]
            page.reload()
            opened(page)
            assert page.locator("#targets button").all_inner_texts() == ["B1", "B2", "B3"]
            page.keyboard.press("Enter")
            opened(page)
            assert second.interrupt() == f"{folder}: 1 of {len(NAMES)} samples done\n"


def test_a_change_made_in_another_window_is_not_overwritten(at, folder):
    first = at("hostile")
    second = at("hostile")
    for page in (first, second):
        page.keyboard.press("n")
    second.keyboard.press("+")  # so that its box is another one
    first.keyboard.press("b")
    settled(first)
    second.keyboard.press("b")
    playwright.expect(second.locator("#saved")).to_contain_text("changed in another window")
    count = len(stored(folder, "hostile").boxes)
    second.reload()
    opened(second)
    assert second.locator("#targets li").count() == count


def test_proposals_of_runs_and_of_a_model_are_taken_with_a_digit(browser, tmp_path):
    folder = samples_folder(tmp_path / "samples")
    run = tmp_path / "<b>run"
    turns = tuple(
        TurnRecord(text="", action=Crop(box), view=(28, 28))
        for box in (Box(0.55, 0.5, 0.65, 0.58), Box(0.5, 0.4, 0.7, 0.7))
    )
    known = {sample.id: sample for sample in read_samples(folder)}
    records = [
        EpisodeRecord(sample=known[name], correct=right, turns=turns)
        for name, right in (("nest", True), ("draw", False))
    ]
    write_run(run, records, Kind.TRAIN)
    reply = '{"bbox_2d": [0, 0, 100, 100]}'
    with ChatServer(say=lambda *shown: reply) as model:
        asking = ("--base-url", model.base_url, "--model", "scripted", "--protocol", "qwen3_vl")
        with (
            served(
                "annotate",
                str(folder),
                "--proposals",
                str(run),
                "--hardest",
                str(run),
                "--questions",
                "2",
                *asking,
            ) as server,
            open_page(browser, viewport={"width": 1280, "height": 800}) as page,
        ):
            page.goto(server.address)
            opened(page)
            assert (
                page.locator("#question").inner_text() == "What is at draw?"
            )  # the one that failed comes first
            page.keyboard.press("k")
            playwright.expect(page.locator("#proposals li")).to_have_count(2)
            assert "crops of <b>run" in page.locator("#proposals").inner_text()
            assert page.locator("#overlay .proposal").count() == 2
            page.keyboard.press("2")  # the wider one first: the tighter one still becomes B1
            page.keyboard.press("1")
            page.keyboard.press("m")
            playwright.expect(page.locator("#status")).to_have_text("1 proposed", timeout=20_000)
            page.keyboard.press("3")  # far away from the others: a target of its own
            settled(page)
            assert [len(nested) for nested in stored(folder, "nest").boxes] == [2, 1]
            assert stored(folder, "nest").boxes[1][0].corners == (0, 0, 0.1, 0.1)
            assert "of 2 done" in page.locator("#progress").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_cut_off_at_common_sizes(at, width, scheme):
    page = at("nest", viewport={"width": width, "height": width * 5 // 8}, color_scheme=scheme)
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth && "
        "document.documentElement.scrollHeight <= innerHeight"
    )
    for control in ("done", "skip", "flag", "keys", "question", "saved"):
        box = page.locator(f"#{control}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(252, 252, 251)" if scheme == "light" else "rgb(20, 24, 27)")
