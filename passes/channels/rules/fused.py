"""What ONNX Runtime's optimiser fuses and saves: an operator of ONNX with its activation, addend or factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Rule
from .contraction import gemm, matmul
from .convolution import convolve, rewrite_group
from .elementwise import broadcast
from .quantization import MICROSOFT

if TYPE_CHECKING:
    from ..sweep import Sweep


def _conv(s: Sweep) -> None:
    """A Conv with an activation, and with a sum in front of it: the sum's other side is tied to the filters."""
    convolve(s)
    if s.has(3):
        (name,) = (tensor.name for tensor in s.node.outputs)
        s.set(0, broadcast(s, [s.labelled.axes[name], s.axes(3)]))


def _matmul(s: Sweep) -> None:
    """A MatMul with a factor and transposed operands."""
    if s.node.attrs.get("transBatchA", 0) or s.node.attrs.get("transBatchB", 0):
        s.opaque("FusedMatMul with transposed batches has no rule")
        return
    matmul(s)


def _gemm(s: Sweep) -> None:
    """A Gemm with an activation."""
    gemm(s)


def _biased(s: Sweep) -> None:
    """Index by index; a bias is tied to the last axis."""
    s.set(0, broadcast(s, [s.axes(i) for i in range(len(s.node.inputs)) if s.has(i)]))


def _skip_norm(s: Sweep) -> None:
    """A sum and the normalisation of it: statistics over the last axis couple its channels."""
    data = broadcast(s, [s.axes(i) for i in range(len(s.node.inputs)) if s.has(i)])
    s.couple(data[-1], "couples the channels by their mean and variance")
    for position, tensor in enumerate(s.node.outputs):
        if tensor.name:
            s.set(position, data if position in (0, 3) else (*data[:-1], s.fixed(1)))


def _sample(body: str, weights: str, shapes: tuple[str, str]) -> str:
    return f"""
        <ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[{shapes[0]}] x) => (float[{shapes[1]}] y)
        <{weights}> {{ {body} }}
        """


_IMAGES = ("1, 3, 4, 4", "1, 2, 4, 4")
_ROWS = ("2, 5, 4", "2, 5, 3")
_CONV = """
    a = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w1, b1)
    d = com.microsoft.FusedConv <activation = "Relu", group = 6, pads = [1, 1, 1, 1]> (a, wd, b1)
    c = com.microsoft.FusedConv <activation = "Relu"> (d, w2, b1, a)
    y = Conv (c, w3)
    """
_TRANSPOSED = """
    a = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (x, w1)
    h = com.microsoft.BiasGelu (a, b1)
    y = MatMul (h, w2)
    """
_SCORES = """
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    s = com.microsoft.FusedMatMul <transB = 1, alpha = 0.4> (q, k)
    p = Softmax <axis = -1> (s)
    y = MatMul (p, v)
    """
_GELUS = """
    a = MatMul (x, w1)
    b = com.microsoft.Gelu (a)
    c = com.microsoft.FastGelu (b, b1)
    d = com.microsoft.QuickGelu <alpha = 1.7> (c)
    y = MatMul (d, w2)
    """
_SKIP = """
    a = MatMul (x, w1)
    n, m, i, t = com.microsoft.SkipLayerNormalization (x, x, g, o)
    b = Relu (a)
    c = MatMul (b, w2)
    e = Add (n, c)
    y = MatMul (e, w3)
    """
RULES = (
    Rule(
        "FusedConv",
        _conv,
        rewrite_group,
        samples={
            "activation, groups and a sum": _sample(
                _CONV,
                "float[6, 3, 3, 3] w1, float[6] b1, float[6, 1, 3, 3] wd, float[6, 6, 1, 1] w2, float[2, 6, 1, 1] w3",
                _IMAGES,
            ),
        },
        domain=MICROSOFT,
    ),
    Rule(
        "FusedMatMul",
        _matmul,
        samples={
            "transposed weight": _sample(_TRANSPOSED, "float[8, 4] w1, float[8] b1, float[8, 3] w2", _ROWS),
            "two activations": _sample(_SCORES, "float[4, 6] wq, float[4, 6] wk, float[4, 3] wv", _ROWS),
        },
        domain=MICROSOFT,
    ),
    Rule(
        "FusedGemm",
        _gemm,
        samples={
            "activation": _sample(
                'a = com.microsoft.FusedGemm <transB = 1, activation = "Relu"> (x, w1, b1)\n y = MatMul (a, w2)',
                "float[8, 4] w1, float[8] b1, float[8, 3] w2",
                ("5, 4", "5, 3"),
            ),
        },
        domain=MICROSOFT,
    ),
    Rule(
        "FastGelu",
        _biased,
        samples={
            "three forms of GELU": _sample(_GELUS, "float[4, 8] w1, float[8] b1, float[8, 3] w2", _ROWS),
        },
        domain=MICROSOFT,
    ),
    *(Rule(op, _biased, domain=MICROSOFT) for op in ("Gelu", "QuickGelu", "BiasGelu")),
    Rule(
        "SkipLayerNormalization",
        _skip_norm,
        samples={
            "beside a branch": _sample(
                _SKIP, "float[4, 8] w1, float[8, 4] w2, float[4, 3] w3, float[4] g, float[4] o", _ROWS
            ),
        },
        domain=MICROSOFT,
    ),
    Rule("SkipSimplifiedLayerNormalization", _skip_norm, domain=MICROSOFT),
)
