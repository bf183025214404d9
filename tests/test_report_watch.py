"""A report that follows a run which is still being written."""

import json

import pytest
from reports import made_up_episode, noise_pictures
from test_report_reading import write_training

pytest.importorskip("starlette", reason="the extra `web` is not installed: pip install 'lfpc[web]'")

from asking_app import asked
from browser import open_page, served

from lfpc import cli
from lfpc.web.watching import LiveReport, watching_app


@pytest.fixture
def run(tmp_path):
    write_training(tmp_path / "run", noise_pictures(tmp_path / "pictures", 2))
    return tmp_path / "run"


def add_step(run, step, **more):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward": 0.9, **more}) + "\n")


def test_a_new_step_is_in_the_page_that_is_asked_for_next(tmp_path, run):
    app = watching_app(LiveReport([run], tmp_path / "pages", "A run"))
    first = asked(app, "GET", "/").text
    state = asked(app, "GET", "/state").json()
    assert "live.js" in first
    assert "run 0.70" in first
    assert asked(app, "GET", "/state").json() == state
    add_step(run, 3)
    assert asked(app, "GET", "/state").json() != state
    assert "run 0.90" in asked(app, "GET", "/").text
    assert asked(app, "GET", "/episodes.html").status_code == 200
    assert asked(app, "GET", "/data/index.js").text.startswith("lfpc.index(")


@pytest.mark.parametrize(
    "path", ["/../run/config.json", "/%2e%2e/%2e%2e/run/config.json", "/nothing", "/data/"]
)
def test_nothing_outside_the_report_is_served(tmp_path, run, path):
    app = watching_app(LiveReport([run], tmp_path / "pages", "A run"))
    assert asked(app, "GET", path).status_code == 404


def test_a_broken_run_is_one_sentence_and_the_next_look_may_succeed(tmp_path, run):
    app = watching_app(LiveReport([run], tmp_path / "pages", "A run"))
    good = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("not JSON\n")
    answer = asked(app, "GET", "/")
    assert (answer.status_code, "not a line of JSON" in answer.text) == (503, True)
    (run / "metrics.jsonl").write_text(good)
    assert asked(app, "GET", "/").status_code == 200


def test_watching_what_is_no_run_is_refused_before_anything_is_served(tmp_path, capsys):
    assert cli.main(["report", "--watch", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.browser
def test_the_page_follows_the_run_by_itself(browser, run):
    with (
        served("report", str(run), "--watch") as server,
        open_page(browser, expected=["ERR_CONNECTION_REFUSED", "503"]) as page,
    ):
        page.goto(server.address)
        page.locator("#live", has_text="last checked at").wait_for()
        page.click("#runs summary")
        shut = not page.evaluate("document.querySelector('#runs details').open")
        add_step(run, 3, alarming=1.0)
        page.locator(".legend", has_text="run 0.90").first.wait_for()
        assert page.evaluate("!document.querySelector('#runs details').open") == shut, (
            "what was opened or shut stays so"
        )
        page.click("nav .strong")
        page.wait_for_selector("article")
        assert "run, training" in page.inner_text("article .facts >> nth=0")
        page.go_back()
        assert server.interrupt().splitlines()[-1].startswith("stopped serving the report")
        page.wait_for_selector("#live.lost")


def test_training_episodes_keep_their_step_and_reward(tmp_path, run):
    LiveReport([run], tmp_path / "pages", "A run").fresh()
    text = (tmp_path / "pages" / "a" / "data" / "0-0.js").read_text()
    entries = json.loads(text.split(", ", 1)[1].rstrip(");\n"))
    assert [entry["columns"][0]["facts"]["step"] for entry in entries] == [1, 1]
    reward = entries[0]["columns"][0]["reward"]
    assert {name: term for name, term in reward.items() if term} == {"accuracy": 1.0, "total": 1.0}
    assert entries[0]["question"] == made_up_episode(0, run, correct=True).sample.question
