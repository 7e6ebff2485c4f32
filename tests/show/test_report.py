"""Curves and samples of a fit, and a report that needs no other file."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from PIL import Image
from test_plot import ink, steady

from sciml.domains import Grid, InputError
from sciml.networks import FNO
from sciml.show import report, samples, training_curves
from sciml.training import Fit, Normaliser, Score, Signature

ROWS = [
    {
        "epoch": i + 1,
        "learning_rate": 1e-3 / (i + 1),
        "loss": 1.0 / (i + 1),
        "validation": 1.1 / (i + 1),
        "seconds": 0.1,
    }
    for i in range(6)
]
SHAPES = {1: (14,), 2: (9, 14), 3: (9, 14, 11)}


def fit_of(dim: int) -> Fit:
    grid = Grid(SHAPES[dim], (1.0, 2.0, 0.7)[:dim])
    network = FNO(dim=dim, modes=2, width=4, layers=1)
    signature = Signature.of_grid(grid, ("coefficient",), ("u",), {"coefficient": 1, "u": 1})
    fit = Fit(network, signature, Normaliser.identity(1), Normaliser.identity(1), list(ROWS))
    fit.best_epoch, fit.best_error = 6, 1.1 / 6
    fit.config = {"network": "FNO", "epochs": 6}
    return fit


def data_of(dim: int, members: int = 5) -> xarray.Dataset:
    shape = SHAPES[dim]
    axes = ("sample", *"xyz"[:dim])
    random = np.random.default_rng(0)
    fields = {name: (axes, random.standard_normal((members, *shape)).astype("f4")) for name in ("coefficient", "u")}
    grid = Grid(shape, (1.0, 2.0, 0.7)[:dim])
    coordinates = {axis: points.numpy() for axis, points in zip(axes[1:], grid.coordinates(), strict=True)}
    return xarray.Dataset(fields, coordinates, {"grid": json.dumps(grid.to_dict())})


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_samples_share_a_scale(dim: int, tmp_path: Path) -> None:
    figure = samples(fit_of(dim), data_of(dim), 2, tmp_path / "samples.png")
    assert (tmp_path / "samples.png").stat().st_size > 5000
    assert ink(figure) > 0.02
    if dim > 1:
        limits = {
            axes.get_title(loc="left").partition(" (")[0]: axes.images[0].get_clim()
            for axes in figure.axes
            if axes.images
        }
        target, guess = limits["u, target" if dim == 2 else next(k for k in limits if "target" in k)], None
        guess = next(value for key, value in limits.items() if "predicted" in key)
        assert target == guess
        assert next(value for key, value in limits.items() if "coefficient" in key) != target  # scales can differ


def test_samples_refuse_other_data() -> None:
    with pytest.raises(InputError, match="no variable 'u'"):
        samples(fit_of(1), data_of(1).drop_vars("u"))


def test_curves_of_a_fit_and_of_a_run_under_way(tmp_path: Path) -> None:
    assert ink(training_curves(fit_of(1))) > 0.02
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "log.jsonl").write_text(text + '{"epoch": 7, "lo')  # torn by a kill
    figure = training_curves(tmp_path)
    assert len(figure.axes[0].lines[0].get_xdata()) == 6
    with pytest.raises(InputError, match="no history"):
        training_curves(tmp_path / "other")


def outside(page: str) -> list[str]:
    """Everything in a page that a browser would fetch from elsewhere."""
    sources = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']?([^"'\s>]+)""", page)
    sources += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", page)
    found = [source if isinstance(source, str) else "".join(source) for source in sources]
    return [source for source in found if not source.startswith("data:")] + re.findall(
        r"<script|<link|<iframe|https?://", page
    )


def pictures(page: str) -> list[Any]:
    return [
        Image.open(io.BytesIO(base64.b64decode(text)))
        for text in re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    ]


def test_a_report_is_self_contained(tmp_path: Path) -> None:
    fit, data = fit_of(2), data_of(2)
    score = Score(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4]))
    steady(1).plot(tmp_path / "extra.png")
    items = ["A heading", "A sentence with <b>marks</b> & more.", steady(2), fit, score, training_curves(fit), tmp_path / "extra.png",
             {"key": 1.25, "<tag>": "</table>"}, [{"a": 1}, {"a": 2, "b": 3}]]  # fmt: skip
    path = report(items, tmp_path / "page.html", title="<Title>", data=data)
    page = path.read_text()
    assert not outside(page)
    shown = pictures(page)
    assert len(shown) == 5
    for picture in shown:
        picture.load()
    for text in (
        "CONVERGED",
        "discrete backward error",
        "&lt;b&gt;marks",
        "&lt;Title&gt;",
        "&lt;/table&gt;",
        "0.2",
        "Versions",
        "torch",
    ):
        assert text in page
    assert "<b>marks" not in page


def test_the_check_of_self_containment_can_fail() -> None:
    for page in (
        '<img src="https://example.org/a.png">',
        "<script>",
        "<style>@import x.css</style>",
        '<a href="b.html">',
        "<i style='background: url(c.png)'>",
    ):
        assert outside(page), page


def test_a_report_of_a_folder(tmp_path: Path) -> None:
    fit = fit_of(2)
    fit.save(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"test, relative L2": 0.123, "task": {"file": "darcy.h5"}}))
    path = report(tmp_path, data=data_of(2))
    page = path.read_text()
    assert path == tmp_path / "report.html"
    assert not outside(page) and len(pictures(page)) == 2
    assert "0.123" in page and "darcy.h5" in page and "FNO" in page


def test_bad_reports_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training run"):
        report(tmp_path)
    with pytest.raises(InputError, match=r"ends in \.html"):
        report("text", tmp_path / "page.txt")
    with pytest.raises(InputError, match="does not exist"):
        report("text", tmp_path / "none" / "page.html")
    with pytest.raises(InputError, match="cannot show int"):
        report([3], tmp_path / "page.html")
    with pytest.raises(InputError, match="no image"):
        report([tmp_path / "a.png"], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
