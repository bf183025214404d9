import dataclasses
import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
from PIL import Image
from reports import CONFIG, made_up_evidence, made_up_record

from lfpc.boxes import Box
from lfpc.episode import Stop
from lfpc.errors import RunError
from lfpc.evaluation.opened import OpenEvaluation
from lfpc.evaluation.probes import PROBES
from lfpc.evaluation.results import Condition, all_results
from lfpc.evaluation.run import evaluate
from lfpc.images import CropRules, open_picture
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import failed_record
from lfpc.report import results_markdown, write_report
from lfpc.report.browser import CHUNK, EpisodeSet, pick_questions
from lfpc.report.canvas import log_ticks, nice_ticks
from lfpc.report.cards import kinds_of
from lfpc.report.cells import Cell, Table
from lfpc.report.curves import flat_numbers, running_mean, training_figures
from lfpc.report.evidence import DataFacts, Evidence, Origin
from lfpc.report.exports import figure_csv
from lfpc.report.figures import IntervalEstimate, against, bars, points
from lfpc.report.markup import table_latex, table_markdown
from lfpc.report.numbers import percent, with_interval
from lfpc.report.strip import ASKED, TRUTH, episode_strip
from lfpc.report.tables import page_tables
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

RULES = CropRules(min_tokens=1, max_tokens=16)
HOSTILE = (
    """</pre><script>alert("1")</script>' onerror="alert(2)" & <img src=x> {{ 7 * 7 }} \ud800"""
)
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)


@dataclasses.dataclass(frozen=True)
class Config:
    name: str


def crop_then_say(text):
    return lambda context: f"<answer>{text}</answer>" if context.turns else CALL


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def samples(tmp_path):
    """Three questions about two pictures; one has a hostile name, question and answer."""
    found = []
    for i, name in enumerate(["a", "b"]):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((224, 112), 40 + i).convert("RGB").save(path)
        found.append(
            Sample(
                id=name,
                image=path,
                question="Colour?",
                answer="red",
                boxes=((Box(0.1, 0.1, 0.2, 0.2), Box(0, 0, 0.3, 0.3)),),
            )
        )
    hostile = dataclasses.replace(
        found[0],
        id='"><b id="x',
        question=HOSTILE[:-1],
        answer="<i>red</i>",
        category="a|b",
        options=(),
    )
    return [*found, hostile]


@pytest.fixture
def records(tmp_path, samples):
    """Stage I under its own crops and two probes, played by a script that says hostile things."""
    found = {}
    for probe, says in (("own", "red"), ("noise", HOSTILE[:-1]), ("none", "blue")):
        run = RunFolder.open(tmp_path / "runs" / probe, Kind.EVALUATION, Config(probe))
        asked = OpenEvaluation(
            samples=samples,
            run=run,
            protocol=PROTOCOLS["qwen2_5_vl"],
            budget=8,
            look=PROBES[probe](samples, RULES, 0),
            reward=lambda episode: episode_reward(episode, RewardConfig()),
        )
        policy = ScriptedPolicy(crop_then_say(says))
        (found[Condition("stage1", "small", probe, 0)],) = evaluate([asked], policy, progress=False)
    return found


def evidence_of(records):
    """What a report would read of the records' run folders."""
    config = {**CONFIG, "model": HOSTILE[:-1]}
    return made_up_evidence(
        records,
        origins={
            one: Origin({**config, "probe": one.probe}, {"python": "3.11"}) for one in records
        },
        curves={
            "stage1": [{"step": i, "accuracy": i / 4, "reward": {"tool": 0.1}} for i in range(4)]
        },
        data={
            "train": DataFacts(
                count=4, budgets={"16": 3, "64": 1}, categories={"a": 4}, areas=[0.01, 0.25]
            )
        },
    )


def report(out, records, **options):
    return write_report(
        out,
        evidence_of(records),
        **{"title": "A <report>", "notes": ["made by a test"], **options},
    )


def data_of(folder, name):
    """The value of a data file, of `columns` both."""
    text = (folder / "data" / f"{name}.js").read_text(encoding="ascii")
    call, _, values = text.partition("(")
    assert call == f"lfpc.{name if name in ('index', 'columns') else 'chunk'}"
    assert values.endswith(");\n")
    found = json.loads(f"[{values[:-3]}]")
    if call == "lfpc.chunk":
        assert found.pop(0) == name
    return found if call == "lfpc.columns" else found[0]


def texts_in(value):
    """Every text in a JSON value."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    return (
        [text for inner in value for text in texts_in(inner)]
        if isinstance(value, list)
        else [value]
        if isinstance(value, str)
        else []
    )


def test_everything_the_pages_name_lies_beside_them_and_nothing_else_is_asked_for(
    tmp_path, records
):
    index = report(tmp_path / "report", records)
    for file in (index, index.parent / "episodes.html"):
        page = Page(file)
        sources = [link["href"] for link in page.all("link")] + [
            script["src"] for script in page.all("script")
        ]
        sources += [a["href"].split("#")[0] for a in page.all("a")]
        assert len(sources) > 3
        for source in filter(None, sources):
            assert (index.parent / source).is_file(), source
        assert "http" not in file.read_text().replace("http-equiv", "")
        assert str(tmp_path) not in file.read_text()
        assert "default-src 'none'" in page.all("meta")[1]["content"]
    pictures = [
        text for text in texts_in(data_of(index.parent, "0-0")) if text.startswith("pictures/")
    ]
    assert len(pictures) == 3 * (2 + 2), "two views, the own crop and the noise of each question"
    assert all((index.parent / source).is_file() for source in pictures)


def test_hostile_texts_stay_texts(tmp_path, records):
    index = report(tmp_path / "report", records, notes=[HOSTILE])
    page = Page(index)
    assert not page.all("script")
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "{{ 7 * 7 }} ?" in page.text, "a lone surrogate does not stop the report"
    assert HOSTILE[:-1] in page.text, "the model's name"
    found = data_of(index.parent, "0-0")
    assert found[2]["question"] == HOSTILE[:-1]
    assert found[2]["columns"][1]["said"] == HOSTILE[:-1].strip()
    assert data_of(index.parent, "columns")[0]["id"][2] == '"><b id="x'
    for text in texts_in(found):
        assert not text.startswith("pictures/") or re.fullmatch(
            r"pictures/[a-z]+-[0-9a-f]{16}\.jpg", text
        )


def test_long_replies_are_cut_and_say_so(tmp_path, records):
    own = records["stage1", "small", "own", 0]
    *turns, last = own[0].turns
    long = dataclasses.replace(last, text="\u202e\U0001f600" + "x" * 100_000)
    own[0] = dataclasses.replace(own[0], turns=(*turns, long))
    index = report(tmp_path / "report", records)
    text, left = data_of(index.parent, "0-0")[0]["columns"][0]["turns"][-1]["text"]
    assert (len(text), left) == (3_000, 97_002)
    assert (index.parent / "data" / "0-0.js").stat().st_size < 50_000


def test_a_picture_is_saved_once_and_the_probe_shows_its_own_crop(tmp_path, records):
    index = report(tmp_path / "report", records)
    names = sorted(path.name.split("-")[0] for path in (index.parent / "pictures").iterdir())
    # two pictures with a view, an original and a thumbnail each; three questions with their crop
    # and their noise; "none" shows nothing
    assert names == ["crop"] * 6 + ["first"] * 2 + ["original"] * 2 + ["thumbnail"] * 2
    own, noise, none = data_of(index.parent, "0-0")[0]["columns"]
    assert own["turns"][0]["crop"]["src"] != noise["turns"][0]["crop"]["src"]
    assert none["turns"][0]["crop"] is None


def test_boxes_are_fractions_of_the_picture(tmp_path, records):
    found = data_of(report(tmp_path / "report", records).parent, "0-0")[0]
    assert found["boxes"] == [[0.0, 0.0, 0.25, 0.5]]  # 28 of the 112 x 56 pixels that 8 tokens show
    assert found["truth"] == [[0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.3, 0.3]]
    assert found["first"]["width"] == 112


def test_pictures_are_bounded_and_the_other_episodes_keep_their_texts(tmp_path, records):
    index = report(tmp_path / "report", records, shown=1)
    found = data_of(index.parent, "0-0")
    assert sum(one["pictures"] for one in found) == 1
    assert (
        len(
            [
                file
                for file in (index.parent / "pictures").iterdir()
                if file.name.startswith("original")
            ]
        )
        == 1
    )
    assert all(one["columns"][0]["turns"] for one in found)


def test_numbers_lead_to_episodes_that_the_browser_knows(tmp_path, records):
    index = report(tmp_path / "report", records)
    page = Page(index)
    links = [
        dict(parse_qsl(a["href"].split("#")[1]))
        for a in page.all("a")
        if a["href"].startswith("episodes.html#")
    ]
    assert {"arm": "stage1", "budget": "small", "show": "right"} in links
    known = data_of(index.parent, "index")
    kinds = {kind for kind, _ in known["kinds"]} | {"all", "gained", "lost", "differ"}
    assert {link["show"] for link in links} <= kinds
    assert {(link["arm"], link["budget"]) for link in links} == {
        (one["arm"], one["budget"]) for one in known["groups"]
    }
    columns = data_of(index.parent, "columns")[1][0]
    names = [kind for kind, _ in known["kinds"]]
    assert [
        [name for n, name in enumerate(names) if kinds & 1 << n] for kinds in columns["kinds"]
    ] == [
        ["right", "crop", "covers", "lost-noise", "lost-none"],
        ["right", "crop", "covers", "lost-noise", "lost-none"],
        ["wrong", "crop", "covers", "misread"],
    ]
    assert {link["sort"] for link in links if "sort" in link} <= set(columns) | {"order"}


def test_a_question_whose_picture_is_gone_is_still_in_the_browser(tmp_path, records, samples):
    for sample in samples:
        sample.image.unlink(missing_ok=True)
    open_picture.cache_clear()
    found = data_of(report(tmp_path / "report", records).parent, "0-0")
    assert [one["original"] for one in found] == [None] * 3
    assert all(one["columns"][0]["turns"][0]["crop"] is None for one in found)


def test_a_failed_question_is_shown_with_its_reason(tmp_path, records, samples):
    own = records["stage1", "small", "own", 0]
    own[0] = failed_record(samples[0], "a.png: no such picture")
    index = report(tmp_path / "report", records)
    assert data_of(index.parent, "0-0")[0]["columns"][0]["error"] == "a.png: no such picture"
    known = data_of(index.parent, "index")
    failed = 1 << [kind for kind, _ in known["kinds"]].index("failed")
    columns = data_of(index.parent, "columns")[1][0]
    assert [bool(kinds & failed) for kinds in columns["kinds"]] == [
        True,
        False,
        False,
    ]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, records):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="the report cannot be written"):
        report(tmp_path / "file", records)


def test_a_report_of_nothing_has_no_empty_sections(tmp_path):
    index = write_report(tmp_path, Evidence(), title="empty")
    assert not Page(index).all("section")


def test_episodes_come_in_files_of_a_hundred(tmp_path, records):
    own = records["stage1", "small", "own", 0][0]
    many = [
        dataclasses.replace(own, sample=dataclasses.replace(own.sample, id=f"q{n}"))
        for n in range(CHUNK + 1)
    ]
    folder = report(
        tmp_path / "report", {Condition("stage1", "small", "own", 0): many}, shown=0
    ).parent
    assert sorted(file.name for file in (folder / "data").iterdir()) == [
        "0-0.js",
        "0-1.js",
        "columns.js",
        "index.js",
    ]
    assert [one["id"] for one in data_of(folder, "0-1")] == [f"q{CHUNK}"]


def test_every_row_of_every_table_has_its_columns(records):
    tables = page_tables(made_up_evidence(records).results)
    assert {"accuracy", "cost"} <= {table.name for table in tables}
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.name


def test_a_table_and_a_figure_are_files_too(tmp_path, records):
    folder = report(tmp_path / "report", records).parent
    assert (
        (folder / "tables" / "accuracy.md")
        .read_text()
        .splitlines()[2]
        .startswith("| stage1, small | 3 | 66.7 % [")
    )
    latex = (folder / "tables" / "accuracy.tex").read_text()
    assert r"stage1, small & 3 & 66.7 \% [" in latex
    assert latex.count("&") == 10, "two rows of six columns"
    assert (folder / "figures" / "budgets-1.csv").read_text().splitlines() == [
        "budget,count",
        "16,3",
        "64,1",
    ]
    assert (folder / "figures" / "training-accuracy.csv").read_text().splitlines()[:3] == [
        "step,stage1",
        "0,0.0",
        "1,0.25",
    ]
    for drawing in (folder / "figures").glob("*.svg"):
        assert ElementTree.parse(drawing).getroot().tag.endswith("svg")


def test_hostile_names_in_exported_tables_and_figures_stay_texts():
    table = Table(
        "t",
        "A & B",
        "50 % of_it",
        ("a", "b"),
        (
            (Cell("x|y\n\\input{/etc/passwd}"), Cell("\u22121.0 [\u22122, 1]")),
            (Cell("z"), Cell("\u2013")),
        ),
    )
    assert (
        table_markdown(table).splitlines()[2]
        == "| x\\|y \\input{/etc/passwd} | \u22121.0 [\u22122, 1] |"
    )
    latex = table_latex(table)
    assert r"x|y \textbackslash{}input\{/etc/passwd\} & $-$1.0 [$-$2, 1] \\" in latex
    assert r"z & -- \\" in latex
    assert r"\caption{A \& B. 50 \% of\_it}" in latex
    assert figure_csv(bars("b", "t", {"=1+1": 2, "a": 1}, of="n")).splitlines() == [
        "n,count",
        "'=1+1,2",
        "a,1",
    ]


def test_kinds_name_what_the_filters_find():
    right = made_up_record("q", True, tool=True)
    wrong = made_up_record("q", False)
    covering = made_up_record("q", False, tool=True, iou=0.05, coverage=0.95)
    unanswered = made_up_record("q", None, tool=True, stop=Stop.MAX_TURNS, malformed=("no_action",))
    assert kinds_of(right, {"noise": wrong}) == ("right", "crop", "lost-noise")
    assert kinds_of(right, {"noise": right, "truth": wrong}) == ("right", "crop")
    assert kinds_of(wrong, {"truth": right}) == ("wrong", "no-crop", "gained-truth")
    assert kinds_of(covering) == ("wrong", "crop", "covers", "misread", "low-iou")
    assert kinds_of(unanswered) == ("crop", "malformed", "unanswered")


def test_rare_kinds_are_among_the_picked():
    own = [made_up_record(str(n), n != 7, tool=True) for n in range(50)]
    picked = pick_questions([EpisodeSet("stage1", "small", 0, {"own": own})], 6)
    assert len(picked) == 6
    assert "7" in picked


def test_a_page_of_many_arms_gives_each_its_own_colour_and_folds_long_tables(tmp_path):
    arms = [f"arm{n}" for n in range(9)]
    budgets = ("25", "64", "144")
    own = [made_up_record("q", True, tool=True, visual_tokens=9), made_up_record("r", False)]
    found = made_up_evidence(
        {
            (arm, budget, probe, 0): own
            for arm in arms
            for budget in budgets
            for probe in ("own", "noise")
        },
        curves={arm: [{"step": 1, "reward": 1.0}, {"step": 2, "reward": 2.0}] for arm in arms[2:]},
    )
    text = write_report(tmp_path / "out", found, title="x", arms={"arm8": "the last"}).read_text()
    keys = re.findall(r'class="key (s\d) d0"></span>(arm\d)', text)
    colours = {arm: {colour for colour, one in keys if one == arm} for arm in arms}
    assert [len(some) for some in colours.values()] == [1] * 9, "the same in every figure"
    assert len(set.union(*colours.values())) == 9
    exported = (tmp_path / "out" / "figures" / "training-reward.svg").read_text()
    assert re.findall(r'"key (s\d) d0"', exported) == [f"s{n}" for n in range(2, 9)]
    heads = {one.split('"')[0]: one.split("<table>")[0] for one in text.split('id="table-')[1:]}
    assert "<details>" not in heads["accuracy"]
    assert "<details><summary>27 rows</summary>" in heads["probes"]
    assert "<dt>arm8</dt><dd>the last</dd>" in text
    assert "<dt>arm7</dt>" not in text


def test_columns_and_tables_without_a_value_are_left_out():
    own = [made_up_record("q", True, tool=True, n_turns=2), made_up_record("r", False)]
    tables = page_tables(made_up_evidence({("a", "25", "own", 0): own}).results)
    columns = {table.name: table.columns for table in tables}
    assert columns == {
        "accuracy": ("condition", "questions", "accuracy", "shows a crop"),
        "cost": ("condition", "replies"),
    }


def test_estimates_stand_beside_each_other_with_their_intervals():
    places = {
        "small": {"a": IntervalEstimate(0.5, 0.4, 0.6), "b": IntervalEstimate(1.0, None, None)},
        "full": {"b": IntervalEstimate(0.0, None, None, "#x")},
    }
    figure = points("p", "Points", places, of="budget")
    assert [mark.series for mark in figure.marks] == [0, 1, 1]
    first, second, third = figure.marks
    assert first.y < second.y < third.y
    low, _, high, _ = first.ends
    assert low < first.x
    assert first.x - low == pytest.approx(high - first.x)
    assert second.ends[0] == second.ends[2] == second.x > first.x > third.x, "larger is further"
    assert first.label == "a, small: 50.0 % [40.0, 60.0]", "as in the tables"
    assert figure.values[0] == ("small", "a", 0.5, 0.4, 0.6)
    assert points("p", "Points", {}, of="budget").marks == ()


def test_markdown_has_a_row_for_each_arm_and_budget(records):
    lines = results_markdown(all_results(records)).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| stage1 | small | 66.7 % [")
    assert {line.count("|") for line in lines} == {10}


def test_markdown_continues_with_the_planned_comparisons_and_savings():
    sides = {"left": ["stage2", "small"], "right": ["stage1", "small"]}
    row = {
        "name": "a",
        "metric": "iou",
        **sides,
        "delta": 0.1,
        "low": 0.05,
        "high": 0.15,
        "p": 0.0001,
        "p_holm": 0.02,
        "n": 12,
        "clusters": 6,
    }
    compared = {"differences": [row], "ratios": {"visual_tokens": 8.0, "seconds_alone": None}}
    text = results_markdown({"conditions": {}, "comparisons": compared})
    assert (
        "| stage2 \u2212 stage1, small: IoU | +10.0 [5.0, 15.0] | < 0.001 | 0.020 | 12 | 6 |"
        in text
    )
    assert "| visual tokens | 8.0 times |" in text
    assert text.count("times |") == 1, "no ratio, no row"


def test_strip_shows_original_first_view_and_crop_side_by_side(records, samples):
    sheet = episode_strip(records["stage1", "small", "own", 0][0], PROBES["own"](samples, RULES, 0))
    assert sheet.width > 3 * 300
    inside = [sheet.getpixel((x, 180)) for x in range(0, sheet.width, 5)]
    assert len(set(inside)) > 50, "pictures, not blank paper"
    colors = {color for _, color in sheet.getcolors(1 << 24)}
    assert {TRUTH, ASKED} <= colors
    hostile = episode_strip(
        records["stage1", "small", "noise", 0][2], PROBES["noise"](samples, RULES, 0)
    )
    assert hostile.size[1] == sheet.size[1]


def test_fractions_become_per_cent():
    assert percent(0.1234) == "12.3 %"
    assert percent(None) == "\u2013"
    assert with_interval(-0.05, [-0.1, 0.02], signed=True) == "\u22125.0 % [\u221210.0, 2.0]"
    assert with_interval(0.5, [None, None]) == "50.0 %"
    assert with_interval(-0.0001, [-0.0002, 0.13]) == "0.0 % [0.0, 13.0]"


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert nice_ticks(0.013, 0.087) == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert nice_ticks(3, 3) == [3]


def test_running_mean_looks_back():
    assert running_mean([1, 3, 5, 7], 2) == [1, 2, 4, 6]  # 1, (1+3)/2, (3+5)/2, (5+7)/2


def test_curves_of_all_arms_lie_over_each_other_and_known_quantities_come_first():
    rows = [
        {
            "step": i,
            "zeal": i,
            "reward": {"tool": 0.5},
            "accuracy": 0.1 * i,
            "ok": True,
            "nan": float("nan"),
        }
        for i in range(5)
    ]
    figures = training_figures({"baseline": rows, "stage1": rows[:3], "stage2": []})
    assert [figure.title for figure in figures] == ["Accuracy", "zeal", "reward.tool"]
    assert [figure.main for figure in figures] == [True, False, False]
    assert [line.label for line in figures[0].lines] == ["baseline", "stage1"]
    assert len(figures[0].lines[0].raw.split()) == 5
    assert flat_numbers(rows[1]) == {"step": 1, "zeal": 1, "reward.tool": 0.5, "accuracy": 0.1}


def test_accuracy_lies_against_visual_tokens_on_a_logarithmic_axis():
    def one(tokens, value):
        return f"at {tokens}", tokens, IntervalEstimate(value, value - 0.1, value + 0.1, "#x")

    figure = against(
        "a", "Accuracy", {"a": [one(25, 0.4), one(400, 0.8)], "b": [one(100, 0.6)]}, over="tokens"
    )
    first, last, middle = figure.marks
    assert middle.x - first.x == pytest.approx(last.x - middle.x), "equal ratios, equal distances"
    assert last.y < middle.y < first.y, "larger is higher up"
    assert first.ends[0] == first.ends[2] == first.x
    assert first.ends[3] < first.y < first.ends[1]
    assert [series for series, _ in figure.lines] == [0], "one point has no line"
    assert first.label == "at 25: 40.0 % [30.0, 50.0] at 25 tokens"
    assert [tick.label for tick in figure.x_ticks] == ["50", "100", "200"]
    assert figure.y_ticks[0].label.endswith(" %")
    assert against("a", "Accuracy", {}, over="tokens").marks == ()


def test_logarithmic_ticks_are_round():
    assert log_ticks(20, 300) == [20, 50, 100, 200]
    assert log_ticks(1, 20_000) == [1, 10, 100, 1000, 10_000]


def test_equal_curves_are_drawn_once():
    rows = [{"step": i, "accuracy": i / 10, "reward_accuracy": i / 10, "crops": i} for i in (1, 2)]
    figures = training_figures({"a": rows, "b": rows[:1]})
    assert [figure.title for figure in figures] == ["Accuracy (equal: reward_accuracy)", "crops"]
    assert figures[0].lines[0].last == "20.0 %"


def test_bars_are_as_long_as_their_counts():
    long = "a category with a name of several lines"
    high, low = bars("b", "Budgets", {"16": 4, long: 1}, of="budget").bars
    assert high.width == pytest.approx(4 * low.width)
    assert high.x == low.x
    assert high.y + high.height < low.y
    assert " ".join(low.label.lines) == long, "nothing is cut off"
    assert bars("b", "Budgets", {}, of="budget").bars == ()
