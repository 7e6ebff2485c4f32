"""Images written as NIfTI and DICOM and read back by the libraries of these formats."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sciml.domains import InputError
from sciml.files.medical_images import save_dicom, save_nifti

IMAGE = torch.randn(9, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_nifti_keeps_numbers_and_spacing(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    turned = torch.complex(IMAGE, 2 * IMAGE)
    for name, image in (
        ("a.nii", IMAGE),
        ("b.nii.gz", turned),
        ("c.nii", IMAGE.float()),
        ("d.nii", IMAGE[:, :, None].expand(9, 14, 5)),
    ):
        spacing = (1.5, 2.0, 3.0)[: image.ndim]
        whole = image[None, None]  # as solution.value has it
        found = nibabel.load(save_nifti(tmp_path / name, whole, spacing))
        assert torch.equal(torch.from_numpy(found.get_fdata(dtype="complex128")), image.to(torch.complex128))
        assert found.header.get_zooms() == spacing and found.header.get_xyzt_units()[0] == "mm"
        assert int(found.header["qform_code"]) == int(found.header["sform_code"]) == 0
    first = (tmp_path / "b.nii.gz").read_bytes()
    save_nifti(tmp_path / "b.nii.gz", turned, (1.5, 2.0))
    assert (tmp_path / "b.nii.gz").read_bytes() == first


def test_dicom_gives_the_numbers_back_to_half_a_grey_value(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = save_dicom(tmp_path / "a.dcm", IMAGE[None, None], (1.5, 2.0), "head")
    found = pydicom.dcmread(path)
    values = found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)
    back = torch.from_numpy(values[::-1].T.copy())  # rows downwards are y upwards
    step = float(IMAGE.max() - IMAGE.min()) / 65535
    assert float((back - IMAGE).abs().max()) < 0.51 * step  # half a step, and ten digits of slope and intercept
    assert not float((torch.from_numpy(values.copy()) - IMAGE.T).abs().max()) < 0.1
    assert [float(h) for h in found.PixelSpacing] == [2.0, 1.5] and found.SeriesDescription == "head"
    first = path.read_bytes()
    assert save_dicom(path, IMAGE, (1.5, 2.0), "head").read_bytes() == first
    flat = pydicom.dcmread(save_dicom(tmp_path / "flat.dcm", torch.full((4, 5), 3.0)))
    assert float(flat.pixel_array[0, 0]) * float(flat.RescaleSlope) + float(flat.RescaleIntercept) == 3.0


def test_views_and_short_numbers_are_written_plainly(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    turned = torch.complex(IMAGE, 2 * IMAGE)
    found = nibabel.load(save_nifti(tmp_path / "a.nii", turned.conj()))
    assert torch.equal(torch.from_numpy(found.get_fdata(dtype="complex128")), turned.conj().resolve_conj())
    for image in (IMAGE.half(), IMAGE.bfloat16(), IMAGE > 0, IMAGE.float().numpy()):
        found = nibabel.load(save_nifti(tmp_path / "b.nii", image))
        assert found.get_data_dtype() == "float32"
        assert torch.equal(torch.from_numpy(found.get_fdata()), torch.as_tensor(image).to(torch.float64))


def test_other_images_have_other_names(tmp_path: Path) -> None:
    """Two images with the same grey values are not the same object to an archive."""
    pydicom = pytest.importorskip("pydicom")
    cases = ((IMAGE, (1.0, 1.0)), (2 * IMAGE, (1.0, 1.0)), (IMAGE + 1, (1.0, 1.0)), (IMAGE, (2.0, 1.0)))
    read = [pydicom.dcmread(save_dicom(tmp_path / "a.dcm", image, spacing)) for image, spacing in cases]
    assert all((one.pixel_array == read[0].pixel_array).all() for one in read)
    assert len({one.SOPInstanceUID for one in read}) == 4


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: str, call: object, *given: object) -> None:
        with pytest.raises(InputError, match=words):
            call(*given)  # type: ignore[operator]

    refused("ending", save_nifti, tmp_path / "a.png", IMAGE)
    refused("ending", save_dicom, tmp_path / "a.nii", IMAGE)
    refused("complex", save_dicom, tmp_path / "a.dcm", torch.complex(IMAGE, IMAGE))
    refused("one member and channel", save_nifti, tmp_path / "a.nii", IMAGE.expand(2, 1, 9, 14), (1.0, 1.0))
    refused("plane", save_dicom, tmp_path / "a.dcm", IMAGE.expand(1, 1, 3, 9, 14))
    refused("not finite", save_nifti, tmp_path / "a.nii", IMAGE / 0)
    refused("empty", save_nifti, tmp_path / "a.nii", IMAGE[:0])
    refused("cannot keep numbers", save_dicom, tmp_path / "a.dcm", 1e6 + 1e-3 * IMAGE)
    refused("cannot keep numbers", save_dicom, tmp_path / "a.dcm", 1e308 * IMAGE.sign())
    refused("spacing", save_nifti, tmp_path / "a.nii", IMAGE, (1.0, -1.0))
    for library, call, name in (("nibabel", save_nifti, "a.nii"), ("pydicom", save_dicom, "a.dcm")):
        monkeypatch.setitem(sys.modules, library, None)
        refused(rf"{library}: pip install sciml\[dicom\]", call, tmp_path / name, IMAGE)
    assert not list(tmp_path.iterdir())
