"""Images as radiology's files: NIfTI and DICOM (`pip install sciml[dicom]`: nibabel and pydicom).

NIfTI (Cox et al. 2004, nifti.nimh.nih.gov) keeps numbers as they are, complex ones too, for one to three axes of space. DICOM
(NEMA PS3, dicom.nema.org) keeps a plane of 16 bits with the slope and the intercept that give the numbers back, to half a step of
1/65535 of their range. Where the patient lies is not known here: NIfTI files say so (their codes of orientation are 0), and
DICOM files are Secondary Captures without a position. Nothing of a patient is written.

*Fails when* software reads an unknown orientation as a known one: do not tell left from right by these files.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.files.checkpoint import write_atomic

__all__ = ["save_dicom", "save_nifti"]

GREYS = 65535
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"  # explicit


def save_nifti(path: str | os.PathLike[str], image: Tensor, spacing: Sequence[float] = ()) -> Path:
    """Write an image `(x, y)`, `(x, y, z)` or `(x,)` as `.nii`, or compressed as `.nii.gz`.

    Args:
        path: where; an existing file is replaced whole.
        image: real or complex numbers, as they are to be stored (float32, float64, complex64, complex128; others as float32 or
            complex64). Leading axes of length one, as of `solution.value`, are dropped.
        spacing: size of a pixel along every axis in mm; 1 if left out.

    Returns:
        The path.

    Raises:
        InputError: nibabel is missing, the ending is another one, the image is empty, has several channels or members, or is not finite.
    """
    place = _place(path, (".nii", ".nii.gz"))
    values = _plain(image, spacing)
    steps = _steps(values, spacing)
    nibabel = _library("nibabel")
    import numpy as np

    affine = np.diag([*steps, *[1.0] * (3 - len(steps)), 1.0])
    affine[: len(steps), 3] = [-h * (n - 1) / 2 for h, n in zip(steps, values.shape, strict=True)]
    file = nibabel.Nifti1Image(values.numpy(), affine)
    file.header.set_xyzt_units("mm")
    file.set_qform(affine, code=0)
    file.set_sform(affine, code=0)
    content = file.to_bytes()
    if place.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content, mtime=0)
    write_atomic(place, content)
    return place


def save_dicom(
    path: str | os.PathLike[str], image: Tensor, spacing: Sequence[float] = (), description: str = "sciml"
) -> Path:
    """Write a real image `(x, y)` as `.dcm`: x to the right, y upwards, as the pictures of this package.

    Args:
        path: where; an existing file is replaced whole.
        image: real numbers; leading axes of length one, as of `solution.value.abs()`, are dropped.
        spacing: size of a pixel along both axes in mm; 1 if left out.
        description: what the series is called.

    Returns:
        The path.

    Raises:
        InputError: pydicom is missing, the ending is another one, the image is complex, not a plane, not finite, or varies by too
            little beside its size (or by too much) for the ten digits that the format keeps of slope and intercept.
    """
    place = _place(path, (".dcm",))
    if torch.as_tensor(image).is_complex():
        raise InputError(
            f"'{place.name}' cannot hold complex numbers; write image.abs() or image.angle(), or a .nii file"
        )
    values = _plain(image, spacing)
    if values.ndim != 2:
        raise InputError(
            f"'{place.name}' holds a plane, and the image has shape {tuple(values.shape)}; write it slice by slice"
        )
    steps = _steps(values, spacing)
    values = values.to(torch.float64)
    low, high = float(values.min()), float(values.max())
    slope = float(f"{(high - low) / GREYS:.10g}") or 1.0  # as many digits as the format has room for
    low = float(f"{low:.10g}")
    levels = ((values - low) / slope).round().clamp(0, GREYS)
    told = [f"{number:.10g}" for number in (slope, low, *steps)]
    if max(map(len, told)) > 16 or not float((levels * slope + low - values).abs().max()) <= 0.6 * slope:
        raise InputError(
            f"'{place.name}' cannot keep numbers from {low:g} to {high:g} apart to a part in {GREYS}; subtract their mean, or change their unit"
        )
    library = _library("pydicom")
    rows = levels.to(torch.int32).numpy().astype("<u2").T[::-1]
    digest = hashlib.sha256(rows.tobytes() + " ".join([*told, description]).encode()).hexdigest()
    dataset = library.Dataset()
    meta = library.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CAPTURE, LITTLE_ENDIAN
    meta.MediaStorageSOPInstanceUID = f"2.25.{int(digest[:30], 16)}"
    dataset.file_meta = meta
    known: dict[str, Any] = {
        "SOPClassUID": CAPTURE,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": f"2.25.{int(digest[30:60], 16)}",
        "SeriesInstanceUID": f"2.25.{int(digest[20:50], 16)}",
        "Modality": "OT",
        "ConversionType": "WSD",
        "SeriesDescription": description[:64],
        "PatientName": "",
        "PatientID": "",
        "InstanceNumber": 1,
        "Rows": rows.shape[0],
        "Columns": rows.shape[1],
        "PixelSpacing": [told[3], told[2]],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": told[0],
        "RescaleIntercept": told[1],
        "RescaleType": "US",
        "PixelData": rows.tobytes(),
    }
    for name, value in known.items():
        setattr(dataset, name, value)
    stream = io.BytesIO()
    library.dcmwrite(stream, dataset, enforce_file_format=True)
    write_atomic(place, stream.getvalue())
    return place


def _library(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this file needs {name}: pip install sciml[dicom]") from error


def _place(path: str | os.PathLike[str], endings: tuple[str, ...]) -> Path:
    place = Path(path)
    if not place.name.endswith(endings):
        raise InputError(f"'{place}' has another ending than {' or '.join(endings)}; give one of them")
    return place


def _plain(image: Tensor, spacing: Sequence[float]) -> Tensor:
    """One image without the axes of member and channel, on the CPU."""
    values = torch.as_tensor(image).detach().cpu().resolve_conj().resolve_neg()
    axes = len(spacing) or max(1, values.ndim - 2)
    while values.ndim > axes and values.shape[0] == 1:
        values = values[0]
    if not 1 <= values.ndim <= 3 or values.ndim != axes and spacing:
        raise InputError(
            f"the image has shape {tuple(image.shape)}; give one member and channel, as in solution.value[0, 0], and a spacing for every axis"
        )
    if not values.numel() or not bool(torch.isfinite(values).all()):
        raise InputError("the image is empty or not finite everywhere; such numbers have no grey value")
    if values.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        return values
    return values.to(torch.complex64 if values.is_complex() else torch.float32)


def _steps(values: Tensor, spacing: Sequence[float]) -> list[float]:
    steps = [float(h) for h in spacing] or [1.0] * values.ndim
    if len(steps) != values.ndim or not all(0 < h < math.inf for h in steps):
        raise InputError(f"spacing is {tuple(spacing)}; give {values.ndim} positive numbers, in mm")
    return steps
