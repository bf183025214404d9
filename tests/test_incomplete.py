"""Whatever fails, a command that prints figures says how many questions they lack and why, ends
with 1, keeps the rest, and asks only what failed when it is run again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from chat_server import ChatServer
from PIL import Image

from lfpc import cli
from lfpc.errors import PictureError
from lfpc.samples import Sample, read_samples, write_samples

CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 56, '
    "56]}}</tool_call>"
)


def say(question: str, turn: int, pictures: Any) -> str:
    return "<answer>red</answer>" if turn else CALL


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four questions about pictures of their own; the model cannot read the last one."""
    folder = tmp_path / "data"
    folder.mkdir()
    samples: list[Sample] = []
    for n in range(4):
        image = folder / f"{n}.png"
        Image.new("RGB", (112, 112), (40 * n, 0, 0)).save(image)
        question = "poison?" if n == 3 else f"Colour {n}?"
        samples.append(Sample(id=f"q{n}", image=image, question=question, answer="red"))
    write_samples(samples, folder)
    return folder


def served(server: ChatServer) -> list[str]:
    return ["--base-url", server.base_url, "--model", "scripted", "--retries", "0"]


def evaluated(server: ChatServer, data: Path, out: Path, *more: str) -> int:
    words = ["eval", str(data), *served(server), "--protocol", "deepeyes", "--budget", "16"]
    return cli.main([*words, "--probes", "own", "--out", str(out), *more])


def requests(server: ChatServer) -> int:
    count = len(server.requests)
    server.requests.clear()
    return count


def heal(data: Path) -> None:
    """Makes the last question readable, in the data and in what an evaluation kept of it."""
    for file in data.parent.rglob("samples.jsonl"):
        file.write_text(file.read_text().replace("poison?", "Colour 3?"))


def test_an_evaluation_with_failed_questions_is_marked_everywhere_and_ends_with_1(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    with ChatServer(say=say, look=False) as server:
        (data / "2.png").write_bytes(b"broken")
        assert evaluated(server, data, out) == 1
        assert requests(server) == 4
        said = capsys.readouterr()
        results = json.loads((out / "results.json").read_text())
        found = results["incomplete"]["16/own"]
        assert (found["n"], found["failed"], found["undecided"]) == (4, 2, 0)
        assert results["results"]["16/own"]["accuracy,none"] == 0.5
        assert "50.0 (2 of 4)" in said.out
        assert "16/own: 2 of 4 questions failed and count as wrong, the first with: " in said.out
        assert said.err.splitlines()[-1].startswith(
            f"lfpc: {out}: 16/own: 2 of 4 questions failed and count as wrong, the first with: "
        )
        cli.main(["report", str(out), "--out", str(tmp_path / "report")])
        tables = tmp_path / "report" / "tables"
        assert "(2 of 4)" in (tables / "accuracy.md").read_text()
        page = (tmp_path / "report" / "index.html").read_text()
        assert (
            "16 tokens, own: 2 of 4 questions failed and count as wrong, the first with: " in page
        )
        Image.new("RGB", (112, 112)).save(data / "2.png")
        assert evaluated(server, data, out) == 1  # still one; asks again only what failed
        assert requests(server) == 2
        assert "(3 of 4)" in capsys.readouterr().out


def unreadable(sample: Any, budget: int | None, *, factor: int = 28) -> NoReturn:
    raise PictureError(f"{sample.image}: the disk does not answer")


def test_a_probe_whose_pictures_cannot_be_read_has_no_figure_and_ends_with_1(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    heal(data)
    with ChatServer(say=say, look=False) as server:
        assert evaluated(server, data, out) == 0
        probe = ["probe", str(out), "--probes", "none"]
        with monkeypatch.context() as away:
            away.setattr("lfpc.evaluation.opened.first_view", unreadable)
            assert cli.main(probe) == 1
        said = capsys.readouterr()
        assert "none: 4 of 4 questions failed and count as wrong" in said.out
        assert "+100.0" not in said.out
        results = json.loads((out / "results.json").read_text())
        assert results["conditions"][""]["16"]["probes"]["none"]["all"] is None
        cli.main(["report", str(out), "--out", str(tmp_path / "report")])
        assert "(0 of 4)" in (tmp_path / "report" / "tables" / "probes.md").read_text()
        assert cli.main(probe) == 0
        assert "failed" not in capsys.readouterr().out


def test_a_judge_that_does_not_decide_ends_with_1_and_decides_later(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "run"
    heal(data)
    with ChatServer(say=lambda *_: "<answer>crimson</answer>", look=False) as server:
        assert evaluated(server, data, out) == 0
    verdicts = ["perhaps"]
    with ChatServer(say=lambda *_: verdicts[0], look=False) as server:
        words = ["rescore", str(out), "--judge", server.base_url, "--judge-model", "scripted"]
        assert cli.main(words) == 1
        said = capsys.readouterr()
        assert (
            "16/own: 4 of 4 answers are undecided and count as wrong, the first with: no verdict "
            "in the judge's reply 'perhaps'" in said.out
        )
        verdicts[0] = "VERDICT: correct"
        assert cli.main(words) == 0
        results = json.loads((out / "results.json").read_text())
        assert results["incomplete"] == {}
        assert results["results"]["16/own"]["accuracy,none"] == 1


@pytest.mark.parametrize("judged", [False, True])
def test_a_selection_with_failed_samples_writes_the_others_and_ends_with_1(
    data: Path, tmp_path: Path, capsys: Any, judged: bool
) -> None:
    out = tmp_path / "selected"
    if judged:
        heal(data)
    judge = ChatServer(say=lambda question, *_: "perhaps" if "Colour 3" in question else
                       "VERDICT: incorrect", look=False)  # fmt: skip
    answers = iter(range(1000))
    with ChatServer(say=lambda *_: f"<answer>{next(answers)} x</answer>", look=False) as server:
        words = ["select", str(data), *served(server), "--protocol", "deepeyes"]
        words += ["--ladder", "16", "4", "--out", str(out)]
        with judge:
            asked = ["--judge", judge.base_url, "--judge-model", "scripted"] if judged else []
            assert cli.main([*words, *asked]) == 1
        said = capsys.readouterr()
        assert "1 of 4 samples failed and are left out, the first with: " in said.err
        assert ("did not decide" if judged else "poison") in said.err
        assert [sample.id for sample in read_samples(out)] == ["q0", "q1", "q2"]


def test_a_folder_holds_one_set_of_questions_which_may_grow(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    heal(data)
    out = tmp_path / "run"
    samples = read_samples(data)
    others = [replace(sample, id=f"other-{sample.id}") for sample in samples]
    with ChatServer(say=say, look=False) as server:
        write_samples(samples[:2], data)
        assert evaluated(server, data, out) == 0
        before = (out / "results.json").read_bytes()
        write_samples(others, data)
        assert requests(server) == 4
        assert evaluated(server, data, out) == 1
        assert requests(server) == 0
        assert (
            f"{out} holds evaluations of other questions: 2 of theirs, such as 'q0', are not in "
            f"{data}; give another --out" in capsys.readouterr().err
        )
        assert (out / "results.json").read_bytes() == before
        write_samples([*others, *samples], data)
        assert evaluated(server, data, out) == 0
        assert "accuracy 1.000" in capsys.readouterr().out
        assert cli.main(["rescore", str(out)]) == 0
        assert " of 8 records" in capsys.readouterr().out


def test_a_probe_or_rescore_below_a_folder_of_results_writes_no_second_results(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    heal(data)
    out = tmp_path / "run"
    with ChatServer(say=say, look=False) as server:
        assert evaluated(server, data, out, "--budget", "9,16") == 0
        monkeypatch.chdir(out / "16")
        assert cli.main(["probe", ".", "--probes", "none"]) == 0
        assert cli.main(["rescore", str(out / "16")]) == 0
        monkeypatch.chdir(tmp_path)
        assert cli.main(["probe", "run/9", "--probes", "none"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"results: {out / 'results.json'}"
    assert list(tmp_path.rglob("results.json")) == [out / "results.json"]
    results = json.loads((out / "results.json").read_text())
    assert set(results["results"]) == {"9/none", "9/own", "16/none", "16/own"}
    assert list(results["conditions"][""]["16"]["probes"]) == ["none"]


def test_questions_that_were_not_asked_are_missing_not_left_out_in_silence(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    heal(data)
    out = tmp_path / "run"
    with ChatServer(say=say, look=False) as server:
        assert evaluated(server, data, out) == 0
        rows = (out / "16" / "own" / "episodes.jsonl").read_text().splitlines(keepends=True)
        (out / "16" / "own" / "episodes.jsonl").write_text("".join(rows[:3]))  # as if it had ended
        for words in (["rescore", str(out)], ["probe", str(out), "--probes", "none"]):
            capsys.readouterr()
            assert cli.main(words) == 1
            assert "1 of 4 questions were not asked yet" in capsys.readouterr().err
        cli.main(["report", str(out), "--out", str(tmp_path / "report")])
        page = (tmp_path / "report" / "index.html").read_text()
        assert "16/own: 1 of 4 questions were not asked yet" in page
        requests(server)
        assert evaluated(server, data, out) == 0
        assert requests(server) == 2
        assert cli.main(["probe", str(out), "--probes", "none"]) == 0
        assert cli.main(["rescore", str(out)]) == 0
