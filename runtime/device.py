"""What of ONNX Runtime is installed, and where it can run a model."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import os
import sys
import warnings
from importlib import metadata
from typing import Any, Literal

from onnx import TensorProto, helper

from ..passes.errors import UsageError, no_memory

# Before it is imported: else ONNX Runtime writes a device id and a database of its use into the user's cache.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Device = Literal["auto", "cpu", "cuda"]

FATAL, _WARNING = 4, 2  # severities of ONNX Runtime's log: silent, and its default


@functools.cache
def require_onnxruntime() -> None:
    """Raise UsageError where ONNX Runtime is missing or broken; warn where its two builds lie over one another."""
    try:
        import onnxruntime
    except ImportError as error:
        if no_memory(error):
            raise MemoryError(str(error)) from error
        missing = isinstance(error, ModuleNotFoundError)
        raise UsageError(
            "ONNX Runtime is not installed" if missing else f"ONNX Runtime cannot be imported: {error}",
            where=sys.prefix,
            fix="pip install 'onnx-prune[cpu]', or 'onnx-prune[gpu]' on a machine with an NVIDIA GPU",
        ) from error
    builds = _installed_builds()
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in builds and _has_cuda_device() else "onnxruntime"
    again = f"pip uninstall -y {' '.join(builds) or keep} && pip install {keep}"
    if not hasattr(onnxruntime, "InferenceSession"):
        raise UsageError("ONNX Runtime is not whole: parts of it were removed", where=sys.prefix, fix=again)
    if len(builds) > 1:
        warnings.warn(
            f"{' and '.join(builds)} are both installed, and share one folder: the one that came last is used\n"
            f"  where: {sys.prefix}\n  fix:   keep {keep} alone: {again}",
            stacklevel=2,
        )


def _installed_builds() -> tuple[str, ...]:
    """The distributions that bring a folder `onnxruntime` and exclude one another."""
    builds = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            builds.append(name)
    return tuple(builds)


def providers(device: Device, *, exact: bool) -> list[Any]:
    """Those of ONNX Runtime in which a model runs; raise UsageError where the device does not work here.

    exact: float32 products on CUDA, not TF32's.
    """
    require_onnxruntime()
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device {device!r}", where="--device", fix="choose one of auto, cpu, cuda")
    if device == "cuda" and not cuda_available():
        raise UsageError(
            "CUDA was asked for and does not work here",
            where="--device cuda",
            fix="install onnx-prune[gpu] with the CUDA and cuDNN that it was built for, or leave --device at auto",
        )
    if device == "cpu" or not cuda_available():
        return ["CPUExecutionProvider"]
    cuda = {"use_tf32": str(int(not exact)), "device_id": str(device_number())}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def device_number() -> int:
    """The GPU of this process: torchrun's processes have one each; CUDA_VISIBLE_DEVICES says which are seen."""
    return int(os.environ.get("LOCAL_RANK", "0")) % max(_cuda_devices(), 1)


def runtime_version() -> str:
    """Of ONNX Runtime."""
    import onnxruntime

    return onnxruntime.__version__


@functools.cache
def cuda_available() -> bool:
    """Whether ONNX Runtime can run a model on a GPU here: the build, the driver, a device and the libraries."""
    require_onnxruntime()
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not _has_cuda_device():
        return False
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "probe", [tensor], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CUDAExecutionProvider"], enable_fallback=0
        )
    except failures():
        return False
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    return "CUDAExecutionProvider" in session.get_providers()


def _has_cuda_device() -> bool:
    return _cuda_devices() > 0


@functools.cache
def _cuda_devices() -> int:
    """Ask the driver itself; asking ONNX Runtime where there is none takes long and writes to standard error."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


@functools.cache
def failures() -> tuple[type[Exception], ...]:
    """Return every exception that ONNX Runtime's C++ side raises; they share no base class of their own."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)
