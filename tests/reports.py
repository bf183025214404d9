"""Made-up runs for tests of reports: rows as an evaluation writes them, without playing an
episode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc.report.evidence import Evidence, Origin

NOISE_SIZE = 224, 112
CONFIG = {
    "crop": {"factor": 28, "min_tokens": 1, "max_tokens": 16},
    "seed": 0,
    "protocol": "qwen2_5_vl",
    "model": "made up",
}


def crop_turn(box: tuple[float, float, float, float]) -> dict[str, Any]:
    """A call whose crop came back."""
    return {
        "text": f"look at {box}",
        "action": {"kind": "crop", "box": list(box)},
        "view": [56, 28],
        "tokens": 11,
    }


def made_up_row(
    n: int, image: Path, *, correct: bool, says: str = "red", **more: Any
) -> dict[str, Any]:
    """Question `n` about a picture, answered after a crop that grows with `n`."""
    share = 0.1 + 0.8 * (n % 10) / 10
    answer = {
        "text": f"<answer>{says}</answer>",
        "action": {"kind": "answer", "text": says},
        "view": None,
        "tokens": 3,
    }
    return {
        "sample": f"q{n:05}",
        "question": f"Which colour is thing {n}?",
        "options": [],
        "answer": "red",
        "image": str(image),
        "category": "even" if n % 2 == 0 else "odd",
        "boxes": [[[0.0, 0.0, 0.5, 0.5]]],
        "first_view": [112, 56],
        "turns": [crop_turn((0.0, 0.0, share, share)), answer],
        "stop": "answered",
        "said": says,
        "correct": correct,
        "method": "text",
        "tool": True,
        "iou": round(share**2 / 0.25 if share <= 0.5 else 0.25 / share**2, 4),
        "coverage": 1.0,
        "crop_area": share**2,
        "visual_tokens": 8 + n % 7,
        "n_turns": 2,
        "seconds": 0.01 * (n % 5 + 1),
        **more,
    }


def noise_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures with something on them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.effect_noise(NOISE_SIZE, 30 + n).convert("RGB").save(path)
    return paths


def made_up_evidence(rows: Mapping[tuple[str, str, str, int], list[dict[str, Any]]]) -> Evidence:
    """Evidence of such rows."""
    return Evidence(
        rows=rows, origins={key: Origin({**CONFIG, "probe": key[2]}, {}) for key in rows}
    )
