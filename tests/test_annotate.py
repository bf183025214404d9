import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

pytest.importorskip("starlette", reason="the extra `web` is not installed: pip install 'lfpc[web]'")

from asking_app import asked

from lfpc.boxes import Box
from lfpc.boxing.decisions import Boxing, boxing_of, with_boxing
from lfpc.boxing.proposals import Proposal
from lfpc.errors import PictureError, RunError, SampleError
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.web.annotate import AnnotationSession, annotation_app, open_session
from lfpc.web.annotate.session import Change, ChangedElsewhere, revision
from lfpc.web.annotate.tiles import TILE, last_level, tile
from lfpc.web.guard import guarded

INNER = [0.4, 0.4, 0.5, 0.5]
OUTER = [0.3, 0.3, 0.6, 0.6]
HOSTILE = [
    "<script>document.title='x'</script>",
    "\u202eright to left\u2066",
    "\ud800 alone",
    "\0null",
    "😀" * 3,
    "x" * 100_000,
    '"}],"id":"other"',
    "</title><img src=x onerror=alert(1)>",
]


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """Three samples about one picture of 400 x 300 pixels; none has boxes."""
    image = picture()
    write_samples(
        [Sample(id=f"s{i}", image=image, question=f"Question {i}?", answer="K") for i in range(3)],
        tmp_path,
    )
    return tmp_path


@pytest.fixture
def session(folder: Path) -> Iterator[AnnotationSession]:
    with open_session(folder, by="ada") as opened:
        yield opened


def change(session: AnnotationSession, number: int = 0, **fields: Any) -> dict[str, Any]:
    """What a page that has just loaded sample `number` would send."""
    sample = session.sample(number)
    plain = {
        "id": sample.id,
        "revision": revision(sample),
        "boxes": [],
        "state": "todo",
        "flagged": False,
        "note": "",
    }
    return {**plain, **fields}


def put(session: AnnotationSession, number: int, message: Any) -> tuple[int, dict[str, Any]]:
    answer = asked(
        guarded(annotation_app(session)),
        "PUT",
        f"/api/samples/{number}",
        content=json.dumps(message).encode(),
    )
    return answer.status_code, answer.json()


def test_a_change_is_in_the_file_when_the_answer_comes(session: AnnotationSession):
    status, answer = put(
        session,
        1,
        change(session, 1, boxes=[[INNER, OUTER]], state="done", flagged=True, note="blurred"),
    )
    assert (status, answer["boxes"]) == (200, [[INNER, OUTER]])
    stored = read_samples(session.folder)
    assert [sample.id for sample in stored] == ["s0", "s1", "s2"]
    assert stored[1].boxes == ((Box(*INNER), Box(*OUTER)),)
    assert boxing_of(stored[1]) == Boxing(state="done", flagged=True, note="blurred", by="ada")
    assert stored[0].boxes == ()
    assert stored[0].meta == {}


@pytest.mark.parametrize(
    "boxes",
    [
        [[OUTER, INNER]],  # widest first
        [[INNER, [0.45, 0.3, 0.6, 0.6]]],  # B2 cuts through B1
        [[]],
        [[[0.5, 0.5, 0.4, 0.4]]],
        [[[0, 0, 1.5, 1]]],
        [[[0, 0, float("nan"), 1]]],
        [[[0, 0, 10**400, 1]]],
        [[[0, 0, 1]]],
        [[["a", 0, 1, 1]]],
        "boxes",
        None,
        {"a": 1},
        7,
    ],
)
def test_boxes_that_are_not_nested_boxes_are_refused_and_nothing_is_written(
    session: AnnotationSession, boxes
):
    before = (session.folder / SAMPLES_FILE).read_bytes()
    status, answer = put(session, 0, change(session, boxes=boxes))
    assert status == 400
    assert answer["problem"]
    assert (session.folder / SAMPLES_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"null", b'{"id": "s0"}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_message_that_is_no_change_is_refused_with_a_sentence(
    session: AnnotationSession, content
):
    answer = asked(guarded(annotation_app(session)), "PUT", "/api/samples/0", content=content)
    assert answer.status_code == 400
    assert "a change is an object with id, revision" in answer.json()["problem"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "finished"),
        ("state", ["done"]),
        ("flagged", "yes"),
        ("note", 5),
        ("note", "x" * 1001),
    ],
)
def test_a_decision_of_an_unknown_kind_is_refused(session: AnnotationSession, field, value):
    assert put(session, 0, change(session, **{field: value}))[0] == 400


def test_two_windows_do_not_overwrite_each_other(session: AnnotationSession):
    first = change(session, boxes=[[INNER]])
    second = change(session, boxes=[[OUTER]])
    assert put(session, 0, first)[0] == 200
    status, answer = put(session, 0, second)
    assert status == 409
    assert "another window" in answer["problem"]
    assert read_samples(session.folder)[0].boxes == ((Box(*INNER),),)
    assert (
        put(session, 0, first)[0] == 200
    )  # the answer was lost, the page sends again: it is on disk already


def test_a_revision_outlives_the_server_that_named_it(folder: Path):
    with open_session(folder) as first:
        message = change(first, boxes=[[INNER]])
    with open_session(folder) as second:
        assert put(second, 0, message)[0] == 200


def test_a_change_for_a_sample_that_is_elsewhere_in_the_order_is_a_conflict(
    session: AnnotationSession,
):
    with pytest.raises(ChangedElsewhere, match="order of the samples has changed"):
        session.save(1, Change.from_json(json.dumps(change(session, 0)).encode(), "ada"))


def test_rows_that_another_program_changed_meanwhile_are_kept(session: AnnotationSession):
    message = change(session, 0, boxes=[[INNER]])
    stored = read_samples(session.folder)
    write_samples([stored[0], replace(stored[1], answer="other"), *stored[2:]], session.folder)
    assert put(session, 0, message)[0] == 200
    assert [sample.answer for sample in read_samples(session.folder)] == ["K", "other", "K"]


def test_many_changes_at_once_all_end_in_the_file(session: AnnotationSession):
    def work(number: int) -> None:
        for share in range(1, 6):
            fields = json.dumps(change(session, number, boxes=[[[0, 0, share / 10, 0.5]]])).encode()
            session.save(number, Change.from_json(fields, "ada"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sample.boxes for sample in read_samples(session.folder)] == [
        ((Box(0, 0, 0.5, 0.5),),)
    ] * 3


def test_a_second_server_on_the_folder_is_refused_until_the_first_ends(folder: Path):
    with (
        open_session(folder),
        pytest.raises(RunError, match="is in use: another process writes there"),
        open_session(folder),
    ):
        pass
    with open_session(folder) as again:
        assert len(again.samples()) == 3


def test_a_full_disk_is_the_servers_error_and_leaves_the_file(
    session: AnnotationSession, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = (session.folder / "samples.jsonl").read_bytes()
    monkeypatch.setattr(Path, "replace", refuse)
    status, found = put(session, 0, change(session, boxes=[[[0, 0, 0.5, 0.5]]], state="done"))
    assert (status, "No space left on device" in found["problem"]) == (500, True)
    assert (session.folder / "samples.jsonl").read_bytes() == before


def test_a_folder_without_samples_is_refused(tmp_path: Path):
    with pytest.raises(SampleError, match="no such folder"), open_session(tmp_path / "none"):
        pass
    (tmp_path / SAMPLES_FILE).write_text("")
    with pytest.raises(SampleError, match="holds no samples"), open_session(tmp_path):
        pass


def test_page_has_what_a_person_needs_of_a_sample(folder: Path):
    box = Box(*INNER)
    with open_session(
        folder,
        arrange=lambda samples: samples[::-1],
        proposals={"s2": [Proposal(box, "crops of run", 3)]},
    ) as session:
        app = guarded(annotation_app(session))
        listed = asked(app, "GET", "/api/samples").json()
        found = asked(app, "GET", "/api/samples/0").json()
    assert [one["id"] for one in listed["samples"]] == ["s2", "s1", "s0"]
    assert (found["id"], found["question"], found["answer"]) == ("s2", "Question 2?", "K")
    assert found["proposals"] == [{"box": INNER, "source": "crops of run", "count": 3}]
    assert {key: found["picture"][key] for key in ("width", "height", "levels")} == {
        "width": 400,
        "height": 300,
        "levels": 0,
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reaches_the_page_as_it_is_and_survives_a_change(
    tmp_path: Path, picture: Callable[..., Path], text: str
):
    write_samples(
        [
            Sample(
                id=text, image=picture(), question=text, answer=text, options=(text,), source=text
            )
        ],
        tmp_path,
    )
    with open_session(tmp_path) as session:
        answer = asked(guarded(annotation_app(session)), "GET", "/api/samples/0")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["question"] == text
        assert put(session, 0, change(session, boxes=[[INNER]]))[0] == 200
    stored = read_samples(tmp_path)[0]
    assert (stored.id, stored.question, stored.answer, stored.options) == (
        text,
        text,
        text,
        (text,),
    )


@pytest.mark.parametrize(
    "number", ["-1", "3", "99999999999999999999", "1e3", "..%2f..", "0/../../../etc/passwd"]
)
def test_addresses_that_name_no_sample_get_a_refusal(session: AnnotationSession, number):
    assert asked(guarded(annotation_app(session)), "GET", f"/api/samples/{number}").status_code in (
        400,
        404,
    )


def test_no_picture_outside_the_folder_is_shown_unless_it_was_allowed(
    tmp_path: Path, picture: Callable[..., Path]
):
    outside = picture("outside.png")
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "link.png").symlink_to(outside)
    write_samples(
        [
            Sample(id=name, image=inside / name, question="?", answer="K")
            for name in ("../outside.png", "link.png")
        ],
        inside,
    )
    for allowed, shown in (((), False), ((tmp_path,), True)):
        with open_session(inside, pictures=allowed) as session:
            app = guarded(annotation_app(session))
            for number in (0, 1):
                found = asked(app, "GET", f"/api/samples/{number}").json()
                assert (found["picture"] is not None) == shown
                assert shown or "--pictures" in found["problem"]
                address = (
                    f"{found['picture']['tiles'] if shown else f'/tiles/{number}/x'}/0/0_0.jpg"
                )
                assert asked(app, "GET", address).status_code == (200 if shown else 404)


def test_a_broken_picture_is_named_and_its_sample_can_still_be_skipped(tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    write_samples([Sample(id="s", image=tmp_path / "bad.png", question="?", answer="K")], tmp_path)
    with open_session(tmp_path) as session:
        assert (
            "not a readable picture"
            in asked(guarded(annotation_app(session)), "GET", "/api/samples/0").json()["problem"]
        )
        assert put(session, 0, change(session, state="skipped"))[0] == 200


def test_a_model_that_fails_to_reply_is_reported(folder: Path):
    def ask(sample: Sample) -> list[Proposal]:
        raise RunError(f"no reply about {sample.id}")

    with open_session(folder, ask=ask) as session:
        answer = asked(guarded(annotation_app(session)), "POST", "/api/samples/1/ask", content=b"")
    assert (answer.status_code, answer.json()) == (400, {"problem": "no reply about s1"})


@pytest.mark.parametrize(
    ("size", "levels"),
    [((512, 512), 0), ((513, 20), 1), ((7680, 4320), 4), ((1, 1), 0), ((30_000, 100), 6)],
)
def test_smallest_level_fits_into_one_tile(size, levels):
    # 7680 / 512 = 15, so 4 halvings; 30,000 / 512 = 58.6, so 6
    assert last_level(size) == levels


def test_tiles_of_a_large_picture_are_its_pixels_and_together_cover_it(tmp_path: Path):
    path = tmp_path / "large.png"
    whole = Image.new("RGB", (1300, 700), "navy")
    ImageDraw.Draw(whole).rectangle((1100, 600, 1299, 699), fill="white")
    whole.save(path)
    top = last_level(whole.size)
    assert top == 2
    sizes = [[Image.open(BytesIO(tile(path, top, x, y))).size for x in range(3)] for y in range(2)]
    assert sizes == [
        [(TILE, TILE), (TILE, TILE), (276, TILE)],
        [(TILE, 188), (TILE, 188), (276, 188)],
    ]  # 1300 = 512 + 512 + 276
    corner = Image.open(BytesIO(tile(path, top, 2, 1)))
    assert min(corner.getpixel((275, 187))) > 250  # white
    assert max(corner.getpixel((0, 0))[:2]) < 10  # navy
    smallest = Image.open(BytesIO(tile(path, 0, 0, 0)))
    assert smallest.size == (325, 175)
    for level, column, row in ((top, 3, 0), (top, 0, 2), (top + 1, 0, 0), (-1, 0, 0), (0, 1, 0)):
        with pytest.raises(PictureError, match="no tile"):
            tile(path, level, column, row)


def test_a_replaced_picture_has_other_tile_addresses_and_they_show_its_own_pixels(folder: Path):
    path = folder / "picture.png"

    def shown(colour: str) -> tuple[str, Any]:
        Image.new("RGB", (1300, 700), colour).save(path, compress_level=0)
        os.utime(path, (1, 1))  # as a copy that keeps the time; the size is the same too
        tiles = asked(app, "GET", "/api/samples/0").json()["picture"]["tiles"]
        answers = [asked(app, "GET", f"{tiles}/{level}/0_0.jpg") for level in (0, 2)]
        assert all("immutable" in answer.headers["cache-control"] for answer in answers)
        smallest, largest = (
            Image.open(BytesIO(answer.content)).getpixel((0, 0)) for answer in answers
        )
        assert smallest == largest
        return tiles, largest

    with open_session(folder) as session:
        app = guarded(annotation_app(session))
        before, red = shown("red")
        after, blue = shown("blue")
        assert red[0] > 250 > 5 > red[2]
        assert blue[2] > 250 > 5 > blue[0]
        assert before != after
        assert asked(app, "GET", f"{before}/0/0_0.jpg").status_code == 404


fractions = st.floats(0, 1, allow_nan=False)


@given(
    st.lists(st.tuples(fractions, fractions, fractions, fractions), max_size=4),
    st.sampled_from(["todo", "done", "skipped"]),
    st.text(),
)
def test_whatever_is_accepted_reads_back_the_same(corners, state, note):
    sample = Sample(id="s", image=Path("a.png"), question="?", answer="K", meta={"kept": 1})
    try:
        boxing = Boxing(state=state, note=note[:1000], flagged=bool(note))
        changed = with_boxing(sample, tuple((Box(*one),) for one in corners), boxing)
    except ValueError:
        return
    assert boxing_of(changed) == boxing
    assert changed.meta["kept"] == 1
    assert boxing_of(with_boxing(changed, (), Boxing())) == Boxing()


def test_meta_that_is_no_boxing_is_refused_with_the_sample(
    tmp_path: Path, picture: Callable[..., Path]
):
    for wrong in ("done", {"state": "finished"}, {"colour": "red"}):
        write_samples(
            [Sample(id="s1", image=picture(), question="?", answer="K", meta={"boxing": wrong})],
            tmp_path,
        )
        with pytest.raises(SampleError, match=r"s1|state"), open_session(tmp_path):
            pass
