"""One episode as a page that opens from disk."""

from pathlib import Path

from lfpc.errors import RunError
from lfpc.looks import Look
from lfpc.records import EpisodeRecord
from lfpc.report.browser import EpisodeSet, write_episode_sets
from lfpc.report.evidence import NamedLook
from lfpc.report.pages import copy_static, templates
from lfpc.report.pictures import PictureFiles


def write_episode_page(out: Path, record: EpisodeRecord, look: Look, *, model: str) -> Path:
    """Write the page, its data and its pictures into `out`; returns the path of `index.html`.

    Args:
        out: folder; made if needed.
        record: the episode; `correct` is None without a reference answer.
        look: look of the episode, which makes its crops again.
        model: name of the model.
    Raises:
        RunError: the folder cannot be written.
    """
    sample = record.sample
    one = EpisodeSet(model, f"{record.global_tokens} tokens", 0, {"own": [record]})
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_episode_sets(
            out,
            [one],
            lambda _: NamedLook("own", look),
            PictureFiles(out / "pictures"),
            {sample.id},
        )
        copy_static(out)
        page = (
            templates()
            .get_template("episodes.html.j2")
            .render(title=sample.question[:100], alone=True)
        )
        (out / "index.html").write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{out}: the page cannot be written: {error.strerror or error}") from error
    return out / "index.html"
