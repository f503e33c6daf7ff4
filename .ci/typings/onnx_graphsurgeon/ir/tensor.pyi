import onnx

class LazyValues:
    tensor: onnx.TensorProto

class SparseValues(LazyValues): ...
