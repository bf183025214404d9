"""Training sets in their published layouts, made here with tiny pictures."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture_bytes(colour: int = 0, size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour % 256, colour // 256, 90)).save(out, form)
    return out.getvalue()


def write_picture(file: Path, colour: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture_bytes(colour, size, "JPEG" if file.suffix == ".jpg" else "PNG"))
    return file


def write_parquet(file: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file


def write_json(file: Path, rows: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def deepeyes_row(i: int, picture: bytes | None = None) -> dict[str, Any]:
    return {
        "data_source": "vstar" if i % 2 else "thinklite_eureka",
        "prompt": [
            {"role": "system", "content": "You may call a tool."},
            {
                "role": "user",
                "content": f"<image>\nWhat is {i}? Think first, use <tool_call> if needed.",
            },
        ],
        "images": [{"bytes": picture or picture_bytes(i), "path": None}],
        "ability": "vl_chart",
        "env_name": "visual_toolbox_v2",
        "reward_model": {
            "ground_truth": f"The answer of {i} is a long sentence.",
            "style": "model",
        },
        "extra_info": {
            "question": f"What is {i}?",
            "answer": f"The answer of {i} is a long sentence.",
            "index": str(i),
            "split": "train",
        },
    }


def deepeyes(folder: Path, count: int = 4) -> Path:
    for part in range(3):
        rows = [deepeyes_row(i) for i in range(part, count, 3)]
        if rows:
            write_parquet(folder / f"data_{part}.parquet", rows)
    return folder


def pixel_reasoner(folder: Path) -> Path:
    write_picture(folder / "images" / "a.jpg", 1)
    write_parquet(
        folder / "data.parquet",
        [
            {
                "qid": "q1",
                "question": "What colour?",
                "answer": "red",
                "image": ["images/a.jpg"],
                "is_video": False,
            },
            {
                "qid": "q2",
                "question": "Which?\n(A) red\n(B) blue",
                "answer": "B",
                "image": ["images/a.jpg"],
                "is_video": False,
            },
            {
                "qid": "q3",
                "question": "What happens?",
                "answer": "x",
                "image": ["f1.jpg", "f2.jpg"],
                "is_video": True,
            },
        ],
    )
    return folder


def chain_of_focus(folder: Path) -> Path:
    write_picture(folder / "pictures" / "sa" / "1.jpg", 2)
    write_json(
        folder / "rl.json",
        [
            {
                "question": "<image>How many?",
                "groundtruth": "3",
                "image_name": "file:///authors/disk/sa/1.jpg",
                "data_source": "sa1b",
            },
            {
                "question": "<image>Gone?",
                "groundtruth": "3",
                "image_name": "file:///authors/disk/sa/2.jpg",
                "data_source": "sa1b",
            },
        ],
    )
    return folder


def thinklite(folder: Path) -> Path:
    rows = [
        {"problem": "<image>What is x?", "answer": "4", "image": picture_bytes(3)},
        {"problem": "<image>What is y?", "answer": "5", "image": picture_bytes(4, (20, 60))},
    ]
    write_parquet(folder / "train.parquet", rows)
    return folder


def visualprobe(folder: Path) -> Path:
    for part in ("Easy", "Hard"):
        write_picture(
            folder / f"VisualProbe_{part}" / "images" / "1.jpg", len(part) if part == "Easy" else 77
        )
        row = {
            "problem": "<image>What sign?",
            "images": ["images/1.jpg"],
            "solution": "<answer>stop</answer>",
            "doc_id": 1,
        }
        write_json(
            folder / f"VisualProbe_{part}" / "train.json", [row | {"data_source": "visual_probe"}]
        )
    return folder
