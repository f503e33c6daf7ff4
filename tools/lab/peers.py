"""The same models through others: onnxsim's structured pruning, run here, and what Torch-Pruning publishes."""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from typing import TYPE_CHECKING

from .coverage_rows import PeerRow

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...runtime.analysis import Analysis

SPARSITY = 0.5
_ONNXSIM = "onnxsim"
TORCH_PRUNING_LIST = "https://github.com/VainF/Torch-Pruning/blob/master/examples/torchvision_models/readme.md"
# Architectures of torchvision 0.13.1 in that list, by its names.
_DOES = """
    ssdlite320_mobilenet_v3_large ssd300_vgg16 fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2
    fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_mobilenet_v3_large_fpn fcos_resnet50_fpn keypointrcnn_resnet50_fpn
    maskrcnn_resnet50_fpn_v2 retinanet_resnet50_fpn_v2 alexnet vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14
    convnext_tiny convnext_small convnext_base convnext_large densenet121 densenet169 densenet201 densenet161
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l googlenet inception_v3 mnasnet0_5 mnasnet0_75
    mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_y_400mf regnet_y_800mf
    regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf resnet18 resnet34 resnet50
    resnet101 resnet152 resnext50_32x4d resnext101_32x8d wide_resnet50_2 wide_resnet101_2 fcn_resnet50 fcn_resnet101
    deeplabv3_resnet50 deeplabv3_resnet101 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large squeezenet1_0
    squeezenet1_1 vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn
    """
_FAILS = """
    raft_large swin_t swin_s swin_b shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    """
TORCH_PRUNING_DOES, TORCH_PRUNING_FAILS = frozenset(_DOES.split()), frozenset(_FAILS.split())


def architecture(name: str) -> str:
    """The architecture's name in torchvision, of a model of the zoo that comes from there: without what says how."""
    return name.removeprefix("tv-").split("-", maxsplit=1)[0].removesuffix("_dense")


def through_onnxsim(name: str, model: onnx.ModelProto) -> PeerRow:
    """Half of the channels by `onnxsim.pruning.apply_structured_pruning`, without calibration, and whether it runs.

    Wrong: the output does not run on the input of the original, or has outputs of other shapes. Invalid: it runs, but
    the shapes that it declares contradict the inferred ones, and not so those of the original (`onnx.checker` with
    full_check refuses it).
    """
    from ...pipeline.prune import inspect

    peer = importlib.import_module(f"{_ONNXSIM}.pruning")
    version = importlib.metadata.version(_ONNXSIM)
    original = inspect(model)
    start = time.perf_counter()
    try:
        pruned = peer.apply_structured_pruning(model, sparsity=SPARSITY)
    except Exception as error:  # noqa: BLE001 - whatever the peer raises is the finding
        return PeerRow(name, f"failed: {_words(error)}", version=version)
    seconds = time.perf_counter() - start
    status = _usable(pruned, original)
    kept = None if status.startswith("wrong") else _macs(inspect(pruned)) / (_macs(original) or 1)
    return PeerRow(name, status, kept, seconds, version)


def _usable(model: onnx.ModelProto, original: Analysis) -> str:
    """Return "ok", or what is wrong with a peer's output."""
    from ...passes.errors import ReadError
    from ...runtime.session import open_session

    labelled = original.groups.labelled
    try:
        shown: dict[str, np.ndarray] = open_session(model, optimise=False).run(original.feeds)
    except ReadError as error:
        return f"wrong: {_words(error)}"
    shapes = labelled.facts.shapes
    for name, value in shown.items():
        if shapes.get(name, value.shape) != value.shape:
            return f"wrong: output '{name}' is {list(value.shape)}, not {list(shapes[name])}"
    if _infers(labelled.graph.source) and not _infers(model):
        return "invalid: the declared shapes contradict the inferred ones"
    return "ok"


def _infers(model: onnx.ModelProto) -> bool:
    """Whether strict shape inference finds nothing wrong."""
    import onnx

    from ...passes.graph.spill import without_weights

    try:
        onnx.shape_inference.infer_shapes(without_weights(model), check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def _macs(analysis: Analysis) -> int:
    return analysis.cost.macs(analysis.cost.units)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).split(" Status Message")[0][:160]
