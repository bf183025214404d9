"""A gallery of the paper's three kinds of episode, from a demo, for the documentation.

right-crop-right    the crop shows the target, the answer is right, and wrong when noise is shown in
                    its place
right-crop-misread  the crop shows the target, and the answer is wrong
wrong-crop          the crop shows something else, and the answer is wrong
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lfpc.errors import RunError
from lfpc.records import EpisodeRecord
from lfpc.report.browser import EpisodeSet, episode_sets, episodes_of
from lfpc.report.cards import kinds_of
from lfpc.report.evidence import TRAINING, Evidence
from lfpc.report.finding import Shown, finding_pairs, finding_picture
from lfpc.report.markup import markdown
from lfpc.report.strip import episode_strip

SHOWN_ARM = "stage2"
FINDING = (
    (("baseline", "middle"), "Baseline\n{tokens} visual tokens"),
    (("stage1", "middle"), "Stage I\n{tokens} visual tokens"),
)
"""(arm, budget) and label of the rows of the finding."""
ByProbe = Mapping[str, EpisodeRecord]
"""A question's records by probe."""


@dataclass(frozen=True, slots=True)
class GalleryKind:
    """A kind of episode."""

    name: str
    title: str
    text: str
    kinds: frozenset[str]
    """Filters of `cards.KINDS`; an episode of this kind passes all of them."""

    def holds(self, found: ByProbe) -> bool:
        """Whether a question, given its records by probe, is of this kind."""
        return self.kinds <= set(kinds_of(found["own"], found))


CASES = (
    GalleryKind(
        "right-crop-right",
        "The right crop, read rightly",
        "What the two stages are for: the crop shows the target, and the answer comes from "
        "the crop. With noise in its place it is wrong.",
        frozenset({"lost-noise", "covers"}),
    ),
    GalleryKind(
        "right-crop-misread",
        "The right crop, read wrongly",
        "The crop holds the target, and the answer is wrong all the same.",
        frozenset({"misread"}),
    ),
    GalleryKind(
        "wrong-crop",
        "A crop of the wrong thing",
        "The box misses the target, and the answer with it. This is what the grounding "
        "reward of Stage II is against.",
        frozenset({"wrong", "low-iou"}),
    ),
)


def write_gallery(out: Path, evidence: Evidence) -> Path:
    """Write `out`/gallery.md and a picture of each case into `out`/gallery; returns the page.

    The example of each kind comes from Stage II, else from the last evaluated arm with one about a
    mark, at the first budget. A table counts all episodes.

    Raises:
        RunError: no evaluated episodes, or the folder cannot be written.
    """
    sets = [one for one in episode_sets(evidence) if one.budget != TRAINING and one.seed == 0]
    if not sets:
        raise RunError("the run holds no evaluated episodes; name the folder of lfpc demo")
    parts = [
        "# Gallery\n",
        "Episodes of the miniature, from a demo's records, by `lfpc mini gallery "
        "out/demo --out docs`. "
        "Green: the truth; red: what the model asked for.\n",
        _counts(sets),
    ]
    try:
        (out / "gallery").mkdir(parents=True, exist_ok=True)
        for case in CASES:
            parts.append(_shown(out, case, sets, evidence))
        parts += _finding(out, sets, evidence)
        (out / "gallery.md").write_text("\n".join(parts), encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(
            f"{out}: the gallery cannot be written: {error.strerror or error}"
        ) from error
    return out / "gallery.md"


def _finding(out: Path, sets: list[EpisodeSet], evidence: Evidence) -> list[str]:
    """The section of the finding; empty if a row's arm was not evaluated, or no question shows
    it.
    """
    found = {(one.arm, one.budget): one for one in sets}
    if any(cell not in found for cell, _ in FINDING):
        return []
    chosen = [found[cell] for cell, _ in FINDING]
    pair = next(finding_pairs(*(list(episodes_of(one)) for one in chosen)), None)
    if pair is None:
        return []
    rows: list[Shown] = []
    for one, (own, noise), (_, label) in zip(chosen, pair, FINDING, strict=True):
        looks = [evidence.shown(one.condition(probe)) for probe in ("own", "noise")]
        if not all(looks):
            return []
        name = label.format(tokens=own.visual_tokens)
        rows.append(Shown(name, own, noise, *(look.look for look in looks if look)))
    finding_picture(rows).save(out / "gallery" / "finding.jpg", quality=88)
    return [
        "## One question under its own crop and under noise\n\n"
        "The baseline answers the same whatever the crop shows. After Stage I the answer comes "
        "from the crop.\n\n"
        "![One question under its own crop and under noise](gallery/finding.jpg)\n\n"
        f"`{rows[0].own.sample.id}`, the first question of the demo that shows it.\n"
    ]


def _counts(sets: list[EpisodeSet]) -> str:
    rows = [
        (
            one.arm,
            one.budget,
            *(f"{sum(map(case.holds, _by_question(one)))} of {len(one.own)}" for case in CASES),
        )
        for one in sets
    ]
    return markdown(("arm", "budget", *(case.title.lower() for case in CASES)), rows, left=2)


def _by_question(one: EpisodeSet) -> Iterator[ByProbe]:
    for own, others in episodes_of(one):
        yield {"own": own, **others}


def _shown(out: Path, case: GalleryKind, sets: list[EpisodeSet], evidence: Evidence) -> str:
    heading = f"## {case.title}\n\n{case.text}\n"
    for one in sorted(
        sets,
        key=lambda one: (
            one.budget != sets[0].budget,
            one.arm != SHOWN_ARM,
            -sets.index(one),
        ),
    ):
        look = evidence.shown(one.condition("own"))
        for found in _by_question(one):
            own = found["own"]
            if look and case.holds(found) and own.turns and own.sample.category != "relation":
                picture = out / "gallery" / f"{case.name}.jpg"
                episode_strip(own, look.look).save(picture, quality=85)
                caption = (
                    f"{one.arm}, {one.budget} budget, `{own.sample.id}`: IoU {own.iou:.2f}, "
                    f"{own.visual_tokens} visual tokens."
                )
                return f"{heading}\n![{case.title}](gallery/{case.name}.jpg)\n\n{caption}\n"
    return f"{heading}\nNo evaluated episode is one.\n"
