"""What cannot be read is refused in one sentence that names the file and the next step."""

from __future__ import annotations

import os
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
    for name, make in makers.items():
        make(tmp_path / name)
        os.truncate(tmp_path / name, max(40, int((tmp_path / name).stat().st_size * part)))
        assert "truncated or damaged" in refused(tmp_path / name) or name == "c.pt"


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
]


@pytest.mark.parametrize("seed", range(25))
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


def test_the_fuzz_would_notice_another_error(tmp_path: Path) -> None:
    """The broken twin: h5py itself lets the damage through as OSError."""
    path = tmp_path / "cut.h5"
    layouts.plain_hdf5(path)
    os.truncate(path, 200)
    with pytest.raises(OSError), h5py.File(path):
        pass
