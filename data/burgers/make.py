"""Make this data set again: `python data/burgers/make.py` writes burgers.h5 and manifest.toml in this folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import sciml

HERE = Path(__file__).resolve().parent
NAME = "burgers"
TITLE = "Burgers' equation from random starts, 40 trajectories of 11 frames on 256 points"
SETTINGS = {
    "count": 40,
    "seed": 0,
    "block": 40,
    "n": 256,
    "viscosity": 0.01,
    "times": [step / 10 for step in range(11)],
}


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
