"""TRL in a virtual environment of its own: it shall not decide about the versions this package is used with."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.side_by_side import BenchError

REQUIREMENTS = Path(__file__).with_name("requirements-trl.txt")


def trl_python(root: Path) -> Path:
    """The interpreter of `root`/.venv-trl, which is made on the first call; torch and transformers have the versions in use here.

    Raises:
        BenchError: it cannot be installed; the last line of pip is in the text.
    """
    venv = root / ".venv-trl"
    python, stamp = venv / "bin" / "python", venv / ".installed"
    pins = "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in ("torch", "transformers", "numpy", "pillow"))
    wanted = REQUIREMENTS.read_text(encoding="utf-8") + pins
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing TRL into {venv.name} (once, some minutes)", flush=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(venv)])
    with TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(pins, encoding="utf-8")
        index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *index, "-c", str(constraints), "-r", str(REQUIREMENTS)])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise BenchError("TRL cannot be installed: " + " ".join(errors))
