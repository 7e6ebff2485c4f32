"""Make this data set again: `python data/darcy/make.py` writes darcy.h5 and manifest.toml in this folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import sciml

HERE = Path(__file__).resolve().parent
NAME = "darcy"
TITLE = "Darcy flow through a two-phase medium, 100 members on 31 x 31 points"
SETTINGS = {"count": 100, "seed": 0, "block": 20, "n": 31}


def main(folder: Path = HERE) -> Path:
    """Generate the file and describe it; an older file of the same name is replaced."""
    out = folder / f"{NAME}.h5"
    out.unlink(missing_ok=True)
    sciml.generate(NAME, out=out, **SETTINGS)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    with sciml.open_dataset(out) as data:
        recipe = json.dumps(json.loads(data.attrs["recipe"]), sort_keys=True)
    lines = {
        "name": NAME,
        "title": TITLE,
        "file": out.name,
        "sha256": digest,
        "command": f"python data/{NAME}/make.py",
        "recipe": recipe,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
    (folder / "manifest.toml").write_text(text)
    return out


if __name__ == "__main__":
    main()
