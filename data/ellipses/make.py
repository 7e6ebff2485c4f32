"""Make this data set again: `python data/ellipses/make.py` writes ellipses.h5 and manifest.toml in this folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from sciml.domains import Ellipses, Pixels
from sciml.files.formats import own

HERE = Path(__file__).resolve().parent
NAME = "ellipses"
TITLE = "Random ellipses, 48 images of 64 x 64 pixels"
RECIPE = {"source": "sciml.domains.Ellipses.random", "count": 48, "seed": 0, "extent": 2.0, "mean": 50.0, "n": 64}


def main(folder: Path = HERE) -> Path:
    """Generate the file and describe it; an older file of the same name is replaced."""
    out = folder / f"{NAME}.h5"
    count, n = int(RECIPE["count"]), int(RECIPE["n"])
    pixels = Pixels((n, n), extent=float(RECIPE["extent"]))
    drawn = Ellipses.random(count, seed=int(RECIPE["seed"]), extent=float(RECIPE["extent"]), mean=float(RECIPE["mean"]))
    images = drawn.image(pixels)[:, 0].to(torch.float32).numpy()
    recipe = json.dumps(RECIPE, sort_keys=True)
    own.write(
        str(out),
        {"image": own.Variable(("sample", "x", "y"), images.shape, units="1")},
        {axis: c.numpy() for axis, c in zip("xy", pixels.coordinates(), strict=True)},
        {"recipe": recipe, "grid": json.dumps(pixels.to_dict())},
        [{"image": images}],
    )
    lines = {
        "name": NAME,
        "title": TITLE,
        "file": out.name,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "command": f"python data/{NAME}/make.py",
        "recipe": recipe,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
    (folder / "manifest.toml").write_text(text)
    return out


if __name__ == "__main__":
    main()
