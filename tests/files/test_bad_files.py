"""What cannot be read is refused in one sentence that names the file and the next step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import layouts
import numpy as np
import pytest
import scipy.io

from sciml.domains.errors import InputError
from sciml.files import open_dataset


def refused(path: Path | str, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **how)  # type: ignore[arg-type]
    text = str(caught.value)
    assert os.path.basename(str(path)) in text and text.endswith((".", ")", "?")) and "\n" not in text
    return text


def test_missing_folder_empty_and_foreign(tmp_path: Path) -> None:
    assert "no file" in refused(tmp_path / "none.h5")
    assert "not a file" in refused(tmp_path)
    (tmp_path / "empty.h5").touch()
    assert "empty" in refused(tmp_path / "empty.h5")
    (tmp_path / "letter.h5").write_text("dear all" * 99)
    assert "no layout" in refused(tmp_path / "letter.h5")


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.02])
def test_truncated(tmp_path: Path, part: float) -> None:
    makers = {"a.h5": layouts.plain_hdf5, "b.h5": layouts.pdebench_darcy, "c.pt": layouts.torch_pairs}
    makers |= {"d.h5": layouts.data_exchange, "e.mat": layouts.helsinki_five, "f.mat": layouts.helsinki_reversed}
    for name, make in makers.items():
        make(tmp_path / name)
        os.truncate(tmp_path / name, max(40, int((tmp_path / name).stat().st_size * part)))
        text = refused(tmp_path / name)
        assert "truncated or damaged" in text or "damaged MATLAB" in text or "no layout" in text or name == "c.pt"


def test_missing_variable_shows_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "flow.h5"
    layouts.pdebench_flow(path)
    assert "'density'" in refused(path, names={"densty": "u"})
    text = refused(path, names={"q": "u"})
    assert "it holds" in text and "'Vx'" in text


def test_wrong_dims(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    layouts.plain_hdf5(path)
    assert "does not say" in refused(path)
    assert "name each axis once" in refused(path, names={"nu": "a"}, dims=("sample", "x"))
    assert "no axes of these sizes" in refused(path, names={"nu": "a"}, dims=("sample", "time", "x", "y"))
    assert "has 6 along" in refused(
        path, names={"nu": "a", "f": "b"}, dims={"nu": ("sample", "x", "y"), "f": ("y", "x")}
    )
    with pytest.raises(InputError, match="different names"):
        open_dataset(path, names={"nu": "a"}, dims=("x", "x", "y"))
    with pytest.raises(InputError, match="two variables"):
        open_dataset(path, names={"nu": "a", "f": "a"}, dims=("sample", "x", "y"))
    with pytest.raises(InputError, match="must map"):
        open_dataset(path, names="nu=a")  # type: ignore[arg-type]
    assert "the name of an axis" in refused(path, names={"nu": "x"}, dims=("sample", "x", "y"))


def test_coordinates_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "wave.mat"
    scipy.io.savemat(path, {"u": np.zeros((8, 5)), "x": np.arange(7.0), "t": np.arange(5.0)})
    assert "does not say" in refused(path)
    assert "entries for an axis" in refused(path, dims=("x", "time"))


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.h5"
    layouts.plain_hdf5(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission denied" in refused(path)


MAKERS = [
    layouts.plain_hdf5,
    layouts.pdebench_darcy,
    layouts.pdebench_advection,
    layouts.torch_pairs,
    lambda path: scipy.io.savemat(path, {"coeff": layouts.values(4, 5, 5), "sol": layouts.values(4, 5, 5)}),
    lambda path: layouts.data_exchange(path, views=8, rows=1, bins=40, scale=0.3),
    layouts.helsinki_five,
    layouts.helsinki_reversed,
]


@pytest.mark.filterwarnings("ignore:no axis of rotation", "ignore:the angles of")
@pytest.mark.parametrize("seed", range(8 * len(MAKERS)))
def test_damaged_bytes_give_data_or_one_sentence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "damaged.mat"
    MAKERS[seed % len(MAKERS)](path)
    content = bytearray(path.read_bytes())
    for _ in range(12):
        content[rng.integers(min(len(content), 4000))] = rng.integers(256)
    path.write_bytes(content)
    try:
        data = open_dataset(path)
        for name in data:
            data[name].values  # noqa: B018
    except InputError as error:
        assert "damaged.mat" in str(error)


def changed(path: Path, name: str, value: object) -> str:
    """What is said of a scan in which one dataset was replaced (None: removed)."""
    layouts.data_exchange(path, views=8, rows=1, bins=40, scale=0.3)
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    return refused(path)


def test_damaged_scans(tmp_path: Path) -> None:
    path, counts = tmp_path / "scan.h5", np.ones((8, 1, 40))
    for name in ("exchange/theta", "exchange/data_white", "exchange/data_dark"):
        assert f"no '{name}'" in changed(path, name, None)
        assert "not real numbers" in changed(path, name, b"text")
        assert "is empty" in changed(path, name, np.zeros((0, 1, 40)))
    assert "7 angles for 8 views" in changed(path, "exchange/theta", np.arange(7.0))
    assert "not a number in view 3" in changed(path, "exchange/theta", np.where(np.arange(8) == 3, np.nan, 1.0))
    assert "is empty" in changed(path, "exchange/data", counts[:0])
    assert "not real numbers" in changed(path, "exchange/data", counts + 1j)
    assert "(frame, 1, 40)" in changed(path, "exchange/data_white", np.ones((5, 1, 41)))
    assert "320 of 320 counts" in changed(path, "exchange/data", np.full_like(counts, np.nan))
    assert "320 of 320 counts" in changed(path, "exchange/data_white", np.full((3, 1, 40), np.nan))
    with h5py.File(path, "r+") as file:
        file["exchange/data"].attrs["axes"] = "y:theta:x"
    assert "transpose it" in refused(path)


@pytest.mark.parametrize("write", [layouts.helsinki_five, layouts.helsinki_reversed])
def test_damaged_fan_scans(tmp_path: Path, write: Callable[..., None]) -> None:
    path, facts = tmp_path / "fan.mat", layouts.helsinki()["parameters"]

    def said(**changes: object) -> str:
        write(path, **changes)
        return refused(path)

    without = {name: value for name, value in facts.items() if name != "distanceSourceOrigin"}
    assert "no 'distanceSourceOrigin'" in said(parameters=without)
    assert "for 8 angles" in said(parameters={**facts, "angles": np.arange(8.0)})
    assert "is empty" in said(parameters={**facts, "angles": np.zeros((0, 1))})
    assert "not a number" in said(parameters={**facts, "angles": np.full(9, np.nan)})
    assert "not a number in 126 of 126" in said(sinogram=np.full((9, 14), np.nan))
    assert "not an array of real numbers" in said(sinogram="text")
    assert "one positive length" in said(parameters={**facts, "pixelSizePost": -1.0})
    assert "behind the axis" in said(parameters={**facts, "distanceSourceDetector": 1.0})
    assert "mm, cm or m" in said(parameters={**facts, "distanceUnit": "ft"})
    assert "no structure" in said(parameters=1.0)


def test_the_fuzz_would_notice_another_error(tmp_path: Path) -> None:
    """The broken twin: h5py itself lets the damage through as OSError."""
    path = tmp_path / "cut.h5"
    layouts.plain_hdf5(path)
    os.truncate(path, 200)
    with pytest.raises(OSError), h5py.File(path):
        pass
