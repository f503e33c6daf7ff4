"""The one door to ONNX Runtime, which is imported only when a model is opened."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..passes.errors import ReadError
from ..passes.graph.mapped import is_mapped
from ..passes.graph.scratch import scratch_folder
from ..passes.graph.spill import SPILL_BYTES, beside_folder, copy_except, spill, weight_bytes
from .device import FATAL, Device, device_number, failures, providers
from .guards.bounds import bounded_memory, bounded_time, most_memory
from .guards.crash import left_out
from .guards.failed import first_words, run_error

if TYPE_CHECKING:
    import onnxruntime

Runnable = onnx.ModelProto | str | Path
Resident = Any  # ONNX Runtime's OrtValue: a tensor where the model runs

RECORDED = "optimised.onnx"


class Session:
    """An opened model: `inputs` and `outputs` are the names, `device` is where it runs ("cpu" or "cuda")."""

    __slots__ = (
        "_bfloat16",
        "_copies",
        "_name",
        "_options",
        "_ran",
        "_session",
        "_weights",
        "device",
        "inputs",
        "outputs",
    )

    def __init__(
        self, session: onnxruntime.InferenceSession, name: str, *, copies: bool = False, weights: int | None = None
    ) -> None:
        import onnxruntime

        inputs, outputs = session.get_inputs(), session.get_outputs()
        self._session = session
        self._name = name
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = FATAL
        self._ran = False
        # Arrays that ONNX Runtime gives keep all the memory of its session until the last of them goes: 1.7 GiB for
        # the one output of MViT v2.
        self._copies = copies
        self._weights = weights  # bytes; None: not known
        self._bfloat16 = any(value.type == "tensor(bfloat16)" for value in (*inputs, *outputs))
        self.inputs = tuple(value.name for value in inputs)
        self.outputs = tuple(value.name for value in outputs)
        self.device: Literal["cpu", "cuda"] = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the named outputs, all of them by default; raise ReadError if the model does not run on `feeds`.

        A tensor is an array; a sequence or a map is the list that ONNX Runtime makes of it.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        if not names:
            return {}
        with self._told(feeds):
            run = self._run_values if self._bfloat16 else self._session.run
            if self._ran:
                found = run(names, dict(feeds), self._options)
            else:
                with bounded_memory(self._most(feeds)) if self.device == "cpu" else contextlib.nullcontext():
                    found = bounded_time(lambda: run(names, dict(feeds), self._options), self._options, self._name)
                self._ran = True
            return dict(zip(names, map(_own, found) if self._copies else found, strict=True))

    def run_resident(
        self, feeds: Mapping[str, np.ndarray | Resident], outputs: Iterable[str] | None = None
    ) -> dict[str, Resident]:
        """`run` by I/O binding: the outputs stay where the model runs; arrays are copied there, what is there is read.

        `fetched` brings one to the host. Tensors alone, none of them bfloat16.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        with self._told({name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}):
            binding = self._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, self.placed(value) if isinstance(value, np.ndarray) else value)
            for name in names:
                binding.bind_output(name, self.device, self._number)
            self._session.run_with_iobinding(binding, self._options)
            binding.synchronize_outputs()
            return dict(zip(names, binding.get_outputs(), strict=True))

    def placed(self, array: np.ndarray) -> Resident:
        """The array where the model runs; bfloat16 beside it, whence ONNX Runtime copies it in each run."""
        from onnxruntime import OrtValue

        if array.dtype == helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16):
            return _to_value(array)
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, self._number)

    @property
    def _number(self) -> int:
        return device_number() if self.device == "cuda" else 0

    @contextlib.contextmanager
    def _told(self, feeds: Mapping[str, np.ndarray]) -> Generator[None]:
        """Raise ReadError where the run fails."""
        try:
            yield
        except (MemoryError, *failures()) as error:
            raise run_error(error, self._name, feeds, self._most(feeds)) from error

    def _most(self, feeds: Mapping[str, np.ndarray]) -> int | None:
        """Bytes that a run may take; None: what there is."""
        return None if self._weights is None else most_memory(self._weights, sum(a.nbytes for a in feeds.values()))

    def bound(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """A run on `feeds` to be timed: on a GPU they are copied there once, and the results stay there."""
        if self.device == "cpu" or self._bfloat16:
            return lambda: self.run(feeds)
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, self.device, self._number))
        for name in self.outputs:
            binding.bind_output(name, self.device, self._number)

        def run() -> None:
            self._session.run_with_iobinding(binding, self._options)
            binding.synchronize_outputs()

        return run

    def end_record(self) -> Path:
        """The file of what was recorded, in the format of Chrome's traces; the session was opened to record."""
        return Path(self._session.end_profiling())

    def _run_values(
        self, names: tuple[str, ...], feeds: dict[str, np.ndarray], options: onnxruntime.RunOptions
    ) -> list[np.ndarray]:
        """Run as `InferenceSession.run` does; that one refuses bfloat16."""
        given = {name: _to_value(array) for name, array in feeds.items()}
        return [_to_array(value) for value in self._session.run_with_ort_values(names, given, options)]


def open_session(
    model: Runnable,
    *,
    device: Device = "auto",
    optimise: bool = True,
    threads: int | None = None,
    base_dir: str | Path | None = None,
    additions: onnx.ModelProto | None = None,
    record: Path | None = None,
) -> Session:
    """A session in which ONNX Runtime runs the model.

    Args:
        model: a ModelProto, or the path of a file.
        device: "auto" takes CUDA where it really works.
        optimise: whether ONNX Runtime may rewrite the graph. False runs the nodes as they are written, in their own
            order and without TF32 on CUDA, and frees a tensor as soon as its last reader has run.
        threads: of one operator; None leaves it to ONNX Runtime.
        base_dir: where the external data of a ModelProto lie, if it does not say.
        additions: a model whose nodes, initializers and outputs join those of `model`, which stays as it is.
        record: a folder for RECORDED, the graph as it is run, and for the time of each node, see `Session.end_record`.

    Raises:
        ReadError: ONNX Runtime cannot open the model.
    """
    name = str(model) if isinstance(model, str | Path) else model.graph.name or "the model"
    chosen = providers(device, exact=not optimise)
    with contextlib.ExitStack() as stack:
        try:
            source, data_dir = _source(model, base_dir, additions, stack)
            options = _session_options(optimise, threads, data_dir)
            if record is not None:
                options.enable_profiling = True
                options.profile_file_prefix = str(record / "profile")
                options.optimized_model_filepath = str(record / RECORDED)
            skipped = left_out(model, source, data_dir) if optimise else []
            session = _inference_session(source, options, chosen, skipped)
        except (OSError, *failures()) as error:
            raise ReadError(
                f"ONNX Runtime cannot open the model: {first_words(error)}",
                where=name,
                fix="check the file with onnx.checker.check_model, and that this ONNX Runtime knows its operators",
            ) from error
        del source
    weights = weight_bytes(model, mapped=True) if isinstance(model, onnx.ModelProto) else None
    return Session(session, name, copies=not optimise, weights=weights)


def _source(
    model: Runnable, base_dir: str | Path | None, additions: onnx.ModelProto | None, stack: contextlib.ExitStack
) -> tuple[str | bytes, str | Path | None]:
    """What ONNX Runtime is to read, a path or bytes, and the folder of its external data, which may go with the stack.

    Two serialised messages after one another are their merge (protobuf's encoding): so additions join without a copy
    of the model. Their nodes come first: of nodes that could run, ONNX Runtime takes the first, so that what was added
    runs at once and nothing is kept for it (MViT v2 with 520 tensors taken from: 1.7 GiB, 5.4 GiB with them last).
    """
    first, last = _parts(additions)
    if isinstance(model, str | Path):
        if additions is None:
            return str(model), None
        return first + Path(model).read_bytes() + last, Path(model).resolve().parent
    if weight_bytes(model) > SPILL_BYTES:
        scratch = stack.enter_context(scratch_folder())
        model, base_dir = spill(model, scratch, base_dir), scratch
    elif any(is_mapped(tensor) for tensor in model.graph.initializer):
        model, base_dir = beside_folder(model)
    return first + model.SerializeToString() + last, base_dir


def _parts(additions: onnx.ModelProto | None) -> tuple[bytes, bytes]:
    """The nodes of additions, serialised, and the rest of them."""
    if additions is None:
        return b"", b""
    rest = copy_except(additions, onnx.ModelProto(), "graph")
    copy_except(additions.graph, rest.graph, "node")
    nodes = onnx.ModelProto(graph=onnx.GraphProto(node=additions.graph.node))
    return nodes.SerializeToString(), rest.SerializeToString()


def _session_options(optimise: bool, threads: int | None, data_dir: str | Path | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    # Else idle threads spin and take the cores from whoever works next: run in turns with another model, ResNet-18
    # took 39 ms instead of 20 ms on two cores; alone it is as quick as before.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Packed weights are a second copy of all of them, for a few runs.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # With a reduction after every tensor of DenseNet-121 (batch 8), peak 0.3 GiB; in the default order 1.3 GiB.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if threads is not None:
        options.intra_op_num_threads = threads
    if data_dir is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data_dir))
    return options


def _inference_session(
    source: str | bytes, options: onnxruntime.SessionOptions, providers: list[Any], skipped: Iterable[str] = ()
) -> onnxruntime.InferenceSession:
    import onnxruntime

    more: dict[str, Any] = {"disabled_optimizers": list(skipped)} if skipped else {}
    session = onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0, **more)
    # It keeps the serialised model for its fallback, which is off.
    vars(session).pop("_model_bytes", None)
    return session


def fetched(value: Resident) -> np.ndarray:
    """What a resident tensor holds."""
    return value.numpy()


def _own(value: Any) -> Any:  # noqa: ANN401 - whatever ONNX Runtime returns
    """The same in memory of its own: an array; what a sequence or map holds is copied by ONNX Runtime."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _to_value(array: np.ndarray) -> onnxruntime.OrtValue:
    from onnxruntime import OrtValue

    array = np.ascontiguousarray(array)
    if array.dtype == helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16):
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return OrtValue.ortvalue_from_numpy(array)


def _to_array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = tuple(value.shape())
    if 0 in shape:
        bits = np.empty(shape, np.uint16)
    else:
        pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16))
        bits = np.ctypeslib.as_array(pointer, shape or (1,)).reshape(shape).copy()
    return bits.view(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
