"""Small graphs, one or more an operator, beyond the rules' samples: what tests/runtime/torch/test_operators.py runs.

A case is the body of a graph from x, float[2, 6, 5, 5], to y; `; ` parts lines. Behind `|` stand initializers, with
values or to be drawn. A number in front is the opset, 20 where there is none.
"""
# ruff: noqa: E501, ISC004 - a case reads best as one line, or as one text over two

_ON_UNIT = ("Acos", "Asin", "Atanh")  # between -1 and 1
_ON_POSITIVE = ("Log", "Sqrt", "Reciprocal")
_ANYWHERE = [
    "Abs",
    "Asinh",
    "Atan",
    "Ceil",
    "Cos",
    "Cosh",
    "Erf",
    "Exp",
    "Floor",
    "HardSwish",
    "Identity",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "Elu",
    "Celu",
    "Selu",
    "Gelu",
    "HardSigmoid",
    "LeakyRelu",
    "ThresholdedRelu",
    "Shrink",
    "Softmax",
    "LogSoftmax",
    "LpNormalization",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalLpPool",
    "Flatten",
]
_COMPARE = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_LOGIC = ("And", "Or", "Xor")
_BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
_REDUCE = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

CASES = [
    *(f"y = {op} (x)" for op in _ANYWHERE),
    *(f"t = Tanh (x); y = {op} (t)" for op in _ON_UNIT),
    *(f"s = Sigmoid (x); y = {op} (s)" for op in _ON_POSITIVE),
    "s = Exp (x); o = Add (s, one); y = Acosh (o) | float one = {1.0}",
    *(f"a = Round (x); b = Neg (a); c = {op} (a, b); y = Cast <to = 1> (c)" for op in _COMPARE),
    *(
        f"a = Less (x, z); b = Greater (x, w); c = {op} (a, b); y = Cast <to = 1> (c) | float z = {{0.5}}, float w = {{-0.5}}"
        for op in _LOGIC
    ),
    *(f"a = Cast <to = 7> (x); c = {op} (a, k); y = Cast <to = 1> (c) | int64 k = {{6}}" for op in _BITS),
    "a = Cast <to = 7> (x); c = BitwiseNot (a); y = Cast <to = 1> (c)",
    "a = Less (x, z); c = Not (a); y = Cast <to = 1> (c) | float z = {0.5}",
    # arithmetic
    "y = Add (x, b) | float[6, 1, 1] b",
    "y = Sub (b, x) | float b = {2.5}",
    "y = Mul (x, b) | float[5] b",
    "y = Div (x, b) | float[6, 5, 5] b",
    "y = Div (b, x) | float b = {2.5}",
    "a = Cast <to = 7> (x); c = Div (a, k); y = Cast <to = 1> (c) | int64 k = {-2}",
    "s = Sigmoid (x); y = Pow (s, e) | float e = {2.5}",
    "y = Pow (x, e) | float e = {2.0}",
    "y = Mod <fmod = 1> (x, e) | float e = {0.75}",
    "a = Cast <to = 7> (x); c = Mod (a, k); y = Cast <to = 1> (c) | int64 k = {3}",
    "y = Max (x, b, c) | float[5] b, float c = {0.25}",
    "y = Min (x, b) | float[6, 1, 1] b",
    "y = Mean (x, b) | float[6, 1, 1] b",
    "y = Sum (x, b, b) | float[6, 1, 1] b",
    "y = Clip (x, l, h) | float l = {-0.5}, float h = {0.75}",
    "y = Clip (x, l, h) | float l = {0.0}, float h = {6.0}",
    'y = Clip (x, "", h) | float h = {0.75}',
    "y = Clip (x)",
    "y = PRelu (x, s) | float[6, 1, 1] s",
    'y = Gelu <approximate = "tanh"> (x)',
    "c = Less (x, z); y = Where (c, x, b) | float z = {0.5}, float[5] b",
    "c = IsNaN (x); y = Cast <to = 1> (c)",
    "d = Div (x, z); c = IsInf <detect_negative = 0> (d); y = Cast <to = 1> (c) | float z = {0.0}",
    "d = Cast <to = 11> (x); e = Sqrt (d); f = CastLike (x, e); g = Neg (f); y = Cast <to = 1> (g)",
    "y, m = Dropout (x)",
    "y = Dropout (x, r) | float r = {0.5}",
    # normalisation
    "y = BatchNormalization (x, s, b, m, v) | float[6] s, float[6] b, float[6] m, float[6] v = {1, 2, 3, 1, 2, 3}",
    "a, m2, v2 = BatchNormalization <training_mode = 1, momentum = 0.8> (x, s, b, m, v); c = Add (m2, v2); "
    "d = Unsqueeze (c, k); y = Add (a, d)"
    " | float[6] s, float[6] b, float[6] m, float[6] v = {1, 2, 3, 1, 2, 3}, int64[2] k = {1, 2}",
    "y = InstanceNormalization (x, s, b) | float[6] s, float[6] b",
    "y = LayerNormalization (x, s, b) | float[5] s, float[5] b",
    "y = LayerNormalization <axis = 2> (x, s) | float[5, 5] s",
    "y = LayerNormalization <axis = 1> (x, s, b) | float[5] s, float[5] b",
    "a, m, d = LayerNormalization (x, s); e = Add (a, m); y = Mul (e, d) | float[5] s",
    "24 y = Swish <alpha = 0.7> (x)",
    "23 y = RMSNormalization (x, s) | float[5] s",
    "17 y = SimplifiedLayerNormalization <epsilon = 0.01> (x, s) | float[5] s",
    "y = LRN <size = 3, alpha = 0.1, beta = 0.5, bias = 2.0> (x)",
    "y = LpNormalization <p = 1, axis = 1> (x)",
    "y = Hardmax <axis = 1> (x)",
    "y = Softmax <axis = 1> (x)",
    "y = MeanVarianceNormalization (x)",
    # convolutions: (6 channels in)
    *(
        f"y = Conv <{more}> (x, w, b) | float[4, 6, 3, 2] w, float[4] b"
        for more in (
            'auto_pad = "SAME_UPPER"',
            'auto_pad = "SAME_LOWER"',
            'auto_pad = "SAME_UPPER", strides = [2, 3]',
            'auto_pad = "SAME_LOWER", dilations = [2, 1]',
            'auto_pad = "VALID"',
            "pads = [1, 0, 2, 1], strides = [2, 1]",
            "pads = [0, 0, 1, 1], strides = [2, 2], dilations = [1, 2]",
        )
    ),
    "y = Conv <group = 3> (x, w) | float[6, 2, 3, 3] w",
    *(
        f"y = ConvTranspose <{more}> (x, w, b) | float[6, 4, 3, 2] w, float[4] b"
        for more in (
            "strides = [2, 3]",
            "strides = [2, 2], pads = [1, 0, 1, 0], output_padding = [1, 1]",
            "strides = [2, 2], pads = [0, 1, 1, 0]",
            "strides = [2, 2], pads = [2, 0, 0, 1], output_padding = [1, 0]",
            "dilations = [2, 1], pads = [1, 1, 1, 1]",
            "strides = [3, 3], output_shape = [14, 13]",
            'strides = [2, 2], auto_pad = "SAME_UPPER"',
            'strides = [2, 2], auto_pad = "SAME_LOWER"',
        )
    ),
    "y = ConvTranspose <group = 2, strides = [2, 2]> (x, w) | float[6, 2, 2, 2] w",
    # pooling
    *(
        f"y = {op} <kernel_shape = [3, 2], {more}> (x)"
        for op in ("MaxPool", "AveragePool")
        for more in (
            "strides = [2, 2]",
            "strides = [2, 2], ceil_mode = 1",
            "pads = [1, 0, 1, 1]",
            "pads = [1, 1, 1, 1], strides = [2, 2]",
            "pads = [1, 1, 0, 0], strides = [2, 3], ceil_mode = 1",
            "pads = [1, 1, 1, 1], strides = [3, 3], ceil_mode = 1",
            'auto_pad = "SAME_UPPER", strides = [2, 2]',
            'auto_pad = "SAME_LOWER", strides = [2, 2]',
            "dilations = [2, 1]",
        )
    ),
    *(
        f"y = AveragePool <kernel_shape = [3, 2], count_include_pad = 1, {more}> (x)"
        for more in (
            "pads = [1, 1, 1, 1]",
            "pads = [1, 0, 1, 1], strides = [2, 2]",
            "pads = [1, 1, 1, 1], strides = [3, 3], ceil_mode = 1",
            'auto_pad = "SAME_UPPER", strides = [2, 2]',
        )
    ),
    "y = LpPool <kernel_shape = [2, 2], p = 3, pads = [1, 0, 0, 1]> (x)",
    # products
    "f = Flatten (x); y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, w, b) | float[4, 150] w, float[4] b",
    "f = Flatten (x); y = Gemm <transA = 1> (f, w, b) | float[2, 4] w, float[150, 1] b",
    "f = Flatten (x); y = Gemm (f, w) | float[150, 4] w",
    "y = MatMul (x, w) | float[6, 5, 3] w",
    'y = Einsum <equation = "bchw, cd -> bdhw"> (x, w) | float[6, 4] w',
    # reductions
    *(f"y = {op} <keepdims = 0> (x, k) | int64[2] k = {{1, -1}}" for op in _REDUCE),
    *(f"y = {op} (x)" for op in _REDUCE),
    "s = Exp (x); y = ReduceLogSum (s, k) | int64[1] k = {1}",
    "y = ReduceSum <noop_with_empty_axes = 1> (x)",
    *(
        f"r = Round (x); a = {op} <axis = 1, {more}> (r); y = Cast <to = 1> (a)"
        for op in ("ArgMax", "ArgMin")
        for more in ("keepdims = 0", "select_last_index = 1")
    ),
    "y, i = TopK <axis = 1> (x, k) | int64[1] k = {3}",
    "v, i = TopK <largest = 0> (x, k); y = Cast <to = 1> (i) | int64[1] k = {2}",
    *(
        f"y = CumSum <{more}> (x, k) | int64 k = {{1}}"
        for more in ("exclusive = 1", "reverse = 1", "exclusive = 1, reverse = 1")
    ),
    # shapes
    "y = Flatten <axis = 0> (x)",
    "y = Flatten <axis = 3> (x)",
    "y = Reshape (x, s) | int64[3] s = {0, 3, -1}",
    "y = Reshape <allowzero = 1> (x, s) | int64[2] s = {6, 50}",
    "y = Transpose (x)",
    "m = ReduceMean (x, k); y = Squeeze (m) | int64[1] k = {1}",
    "m = ReduceMean (x, k); y = Squeeze (m, none) | int64[1] k = {1}, int64[0] none = {}",
    "y = ReduceSum (x, none) | int64[0] none = {}",
    "m = ReduceMean (x, k); y = Squeeze (m, j) | int64[2] k = {1, 3}, int64[1] j = {-1}",
    "y = Unsqueeze (x, k) | int64[2] k = {-1, 1}",
    "m = ReduceMean (x, k); y = Expand (m, s) | int64[1] k = {1}, int64[5] s = {3, 1, 4, 1, 1}",
    "y = Tile (x, s) | int64[4] s = {1, 2, 1, 3}",
    "y = Concat <axis = -3> (x, b, x) | float[2, 1, 5, 5] b",
    "a, b, c = Split <axis = 1> (x, s); d = Concat <axis = 1> (c, a, b); y = Neg (d) | int64[3] s = {1, 2, 3}",
    "a, b, c = Split <axis = -1, num_outputs = 3> (x); y = Concat <axis = 1> (c, c)",
    "y = DepthToSpace <blocksize = 2> (p) | float[2, 8, 3, 5] p",
    'y = DepthToSpace <blocksize = 2, mode = "CRD"> (p) | float[2, 8, 3, 5] p',
    "y = SpaceToDepth <blocksize = 2> (p) | float[2, 3, 4, 6] p",
    "s = Shape <start = 1> (x); p = ReduceProd (s, k); t = Concat <axis = 0> (o, p); y = Reshape (x, t)"
    " | int64[1] k = {0}, int64[1] o = {-1}",
    "s = Shape (x); n = Gather (s, i); u = Unsqueeze (n, z); d = Div (u, two); t = Concat <axis = 0> (d, m); "
    "y = Reshape (x, t) | int64 i = {0}, int64[1] z = {0}, int64[1] two = {2}, int64[2] m = {-1, 5}",
    "s = Shape (x); f = Cast <to = 1> (s); q = Sqrt (f); l = Slice (q, a, b); y = Mul (x, l)"
    " | int64[1] a = {3}, int64[1] b = {4}",
    "n = Size (x); f = Cast <to = 1> (n); y = Div (x, f)",
    "s = Shape (x); c = ConstantOfShape <value = float {2.0}> (s); y = Add (x, c)",
    "s = Shape (x); n = Gather (s, i); r = Range (z, n, o); f = Cast <to = 1> (r); y = Mul (x, f)"
    " | int64 i = {3}, int64 z = {0}, int64 o = {1}",
    "r = Range (z, n, o); y = Mul (x, r) | float z = {0.5}, float n = {3.0}, float o = {0.5}",
    "e = EyeLike <k = 1> (m); y = MatMul (x, e) | float[5, 5] m",
    "r = Relu (x); n = NonZero (r); y = Cast <to = 1> (n)",
    # choosing and placing
    "y = Slice (x, a, b, c, d) | int64[2] a = {-2, 4}, int64[2] b = {-9223372036854775807, 0}, int64[2] c = {1, 3}, int64[2] d = {-2, -1}",
    "y = Slice (x, a, b, c, d) | int64[2] a = {1, 0}, int64[2] b = {9223372036854775807, -1}, int64[2] c = {1, -1}, int64[2] d = {2, 3}",
    "y = Slice (x, a, b) | int64[2] a = {0, 2}, int64[2] b = {1, 100}",
    "y = Gather <axis = 1> (x, i) | int64[2, 2] i = {0, -1, 3, 2}",
    "y = Gather <axis = -1> (x, i) | int64 i = {-2}",
    "s = Gather <axis = 0> (t, i); y = Add (x, s) | float[4, 5] t, int64[5] i = {0, 3, 3, 1, 2}",
    "y = GatherElements <axis = 1> (x, i) | int64[2, 2, 5, 1] i = {0, 1, 2, 3, 4, 5, -1, 0, 1, 2, 0, 1, 2, 3, 4, 5, -1, 0, 1, 2}",
    "y = GatherND (x, i) | int64[3, 2] i = {0, 1, 1, -1, 0, 5}",
    "y = GatherND <batch_dims = 1> (x, i) | int64[2, 1, 2] i = {0, 1, 5, -1}",
    "y = ScatterND (x, i, u) | int64[2, 2] i = {0, 1, 1, 5}, float[2, 5, 5] u",
    *(
        f'y = ScatterND <reduction = "{r}"> (x, i, u) | int64[3, 2] i = {{0, 1, 1, 5, 0, 1}}, float[3, 5, 5] u'
        for r in ("add", "mul", "max", "min")
    ),
    "y = ScatterElements <axis = 1> (x, i, u) | int64[1, 2, 1, 2] i = {0, 1, -1, 3}, float[1, 2, 1, 2] u",
    *(
        f'y = ScatterElements <axis = 1, reduction = "{r}"> (x, i, u) | int64[1, 2, 1, 2] i = {{0, 1, 0, 3}}, float[1, 2, 1, 2] u'
        for r in ("add", "mul", "max", "min")
    ),
    *(
        f'y = Pad <mode = "{m}"> (x, p) | int64[8] p = {{0, 2, 1, 3, 0, 1, 4, 0}}'
        for m in ("constant", "edge", "reflect")
    ),
    'y = Pad <mode = "wrap"> (x, p) | int64[8] p = {0, 2, 1, 3, 0, 1, 4, 0}',
    "y = Pad (x, p, v) | int64[8] p = {0, -2, 1, 0, 0, 1, -1, 0}, float v = {1.5}",
    'y = Pad (x, p, "", a) | int64[4] p = {1, 0, 2, 3}, int64[2] a = {1, -1}',
    "y = OneHot (i, d, v) | int64[3] i = {0, -1, 7}, int64 d = {4}, float[2] v = {0.5, 2.0}",
    "y = OneHot <axis = 0> (i, d, v) | int64[3] i = {0, 2, 1}, int64 d = {4}, float[2] v = {0.0, 1.0}",
    "y = Compress <axis = 1> (x, c) | bool[6] c = {1, 0, 1, 1, 0, 0}",
    "y = Compress (x, c) | bool[4] c = {1, 0, 1, 1}",
    "y = Trilu (x)",
    "y = Trilu <upper = 0> (x, k) | int64 k = {1}",
    "y = ReverseSequence <batch_axis = 0, time_axis = 1> (x, n) | int64[2] n = {3, 6}",
    # as ONNX Runtime fuses it
    'y = com.microsoft.FusedConv <activation = "Clip", activation_params = [-0.5, 0.5]> (x, w, b, z) | float[4, 6, 1, 1] w, float[4] b, float[2, 4, 5, 5] z',
    "y = com.microsoft.FusedMatMul <transA = 1, transB = 1, alpha = 0.5> (x, w) | float[6, 3, 5] w",
    'f = Flatten (x); y = com.microsoft.FusedGemm <activation = "LeakyRelu", activation_alpha = 0.1> (f, w) | float[150, 4] w',
    "y = com.microsoft.SkipLayerNormalization <epsilon = 0.001> (t, t, s, b, c) | float[2, 3, 5] t, float[5] s, float[5] b, float[5] c",
    'y, "", "", u = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.001> (t, t, s) | float[2, 3, 5] t, float[5] s',
    # as older opsets write it
    "11 y = Softmax (x)",
    "11 y = LogSoftmax <axis = 2> (x)",
    "11 y = Hardmax <axis = 3> (x)",
    "9 y = Clip <min = -0.5, max = 0.75> (x)",
    "9 y = Slice <starts = [1, -3], ends = [5, 100], axes = [1, -1]> (x)",
    "9 y = Pad <pads = [0, 0, 1, 2, 0, 0, 0, 1], value = 0.5> (x)",
    "9 a = ReduceMean <axes = [1, 2]> (x); y = Squeeze <axes = [1]> (a)",
    "9 a = Unsqueeze <axes = [0, 3]> (x); y = Squeeze (a)",
    "9 a, b = Split <axis = 1, split = [2, 4]> (x); y = Concat <axis = 1> (b, a)",
    "7 v, i = TopK <k = 3> (x); y = Neg (v)",
    "9 y = Dropout <ratio = 0.3> (x)",
    "10 y = Resize (x, f) | float[4] f = {1, 1, 2, 2}",
    '10 y = Resize <mode = "linear"> (x, f) | float[4] f = {1, 1, 1.6, 2}',
    # resizing
    *(
        f'y = Resize <mode = "{mode}", coordinate_transformation_mode = "{where}"> (x, "", "", s) | int64[4] s = {{2, 6, {size}}}'
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
        for size in ("10, 15", "7, 3", "1, 8")
    ),
    *(
        f'y = Resize <mode = "nearest", nearest_mode = "{near}", coordinate_transformation_mode = "{where}"> (x, "", f)'
        f" | float[4] f = {{1, 1, {factors}}}"
        for near in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for where in ("half_pixel", "asymmetric")
        for factors in ("2, 3", "1.7, 0.6")
    ),
    'y = Resize <mode = "linear"> (x, "", f) | float[4] f = {1, 1, 2.3, 0.7}',
    'y = Resize <mode = "linear"> (x, "", f) | float[4] f = {1, 2, 2, 1}',
    'y = Resize <mode = "cubic", cubic_coeff_a = -0.5, exclude_outside = 1> (x, "", f) | float[4] f = {1, 1, 2, 2}',
    *(
        f'y = Resize <mode = "{mode}", antialias = 1> (x, "", "", s) | int64[4] s = {{2, 6, 3, 2}}'
        for mode in ("linear", "cubic")
    ),
    'y = Resize <mode = "linear", axes = [3, 2], keep_aspect_ratio_policy = "not_larger"> (x, "", "", s) | int64[2] s = {10, 7}',
    *(f'9 y = Upsample <mode = "{mode}"> (x, f) | float[4] f = {{1, 1, 2, 3}}' for mode in ("nearest", "linear")),
    *(
        f'y = GridSample <mode = "{mode}", padding_mode = "{pad}", align_corners = {corners}> (x, g) | float[2, 4, 3, 2] g'
        for mode in ("linear", "nearest", "cubic")
        for pad in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
]

# Of a sequence, float[5, 2, 4] t (time, batch, input); hidden size 3.
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(op, more="", directions=1, states="", extra=""):
    gates = 3 * _GATES[op]
    weights = f"float[{directions}, {gates}, 4] w, float[{directions}, {gates}, 3] r, float[{directions}, {2 * gates}] b{extra}"
    last = ", c" if op == "LSTM" else ""
    joined = "s = Add (h, c); y = Add (o, s)" if op == "LSTM" else "y = Add (o, h)"
    return f"o, h{last} = {op} <hidden_size = 3{more}> (t, w, r, b{states}); {joined} | {weights}, float[5, 2, 4] t"


CASES += [
    *(_recurrent(op) for op in _GATES),
    *(_recurrent(op, ', direction = "reverse"') for op in _GATES),
    *(_recurrent(op, ", clip = 0.5") for op in _GATES),
    _recurrent("LSTM", states=', "", h0, c0', extra=", float[1, 2, 3] h0, float[1, 2, 3] c0"),
    _recurrent("LSTM", states=', "", h0, c0, p', extra=", float[1, 2, 3] h0, float[1, 2, 3] c0, float[1, 9] p"),
    _recurrent("LSTM", ", input_forget = 1"),
    _recurrent("LSTM", ', activations = ["HardSigmoid", "Softsign", "Relu"]'),
    _recurrent("GRU", ", linear_before_reset = 1", states=', "", h0', extra=", float[1, 2, 3] h0"),
    _recurrent("RNN", ', activations = ["Relu"]'),
    *(
        f'y, h = {op} <hidden_size = 3, direction = "bidirectional"{more}> (t, w, r, b) '
        f"| float[2, {3 * g}, 4] w, float[2, {3 * g}, 3] r, float[2, {6 * g}] b, float[5, 2, 4] t"
        for op, g in _GATES.items()
        for more in ("", ", clip = 0.5")
    ),
    "23 y = Attention <q_num_heads = 2, kv_num_heads = 1, is_causal = 1, softcap = 2.0> (q, k, v)"
    " | float[2, 3, 8] q, float[2, 5, 4] k, float[2, 5, 6] v",
    "23 y = Attention <scale = 0.7> (q, k, v, m)"
    " | float[2, 2, 3, 4] q, float[2, 2, 3, 4] k, float[2, 2, 3, 5] v, bool[3, 3] m = {1, 0, 1, 1, 1, 0, 0, 1, 1}",
    "q = QuantizeLinear (x, s, z); y = DequantizeLinear (q, s, z) | float s = {0.05}, int8 z = {3}",
    "q = QuantizeLinear <axis = 1> (x, s); y = DequantizeLinear <axis = 1> (q, s)"
    " | float[6] s = {0.05, 0.1, 0.02, 0.03, 0.04, 0.2}",
]
