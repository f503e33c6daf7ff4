"""setuptools as the build backend, with editable installs that type checkers follow.

The root of the repository is the import package, so setuptools finds it by a hook at run time, which mypy and pyright
cannot run. They read paths: an editable wheel gets one more .pth, of the folder `.editable`, in which a link named
onnx_prune leads to the checkout.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]
_ROOT = Path(__file__).resolve().parents[1]


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The wheel of setuptools, with the path where links are allowed."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    folder = _linked()
    if folder is not None:
        _add(Path(wheel_directory, name), "_onnx_prune_path.pth", f"{folder}\n")
    return name


def _linked() -> Path | None:
    """The folder with the link; None where the system makes none (Windows without its developer mode)."""
    folder = _ROOT / ".editable"
    link = folder / "onnx_prune"
    try:
        folder.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(Path(".."), target_is_directory=True)
    except OSError:
        return None
    return folder


def _add(wheel: Path, name: str, text: str) -> None:
    """Put a file into a wheel, and its line into the wheel's RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    record = next(member for member in files if member.endswith(".dist-info/RECORD"))
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    files[record] = f"{name},sha256={digest},{len(text.encode())}\n".encode() + files[record]
    files = {name: text.encode(), **files}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
