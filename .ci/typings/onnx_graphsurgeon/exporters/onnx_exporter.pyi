import onnx

from .. import Constant, Node

class OnnxExporter:
    @staticmethod
    def export_node(node: Node) -> onnx.NodeProto: ...
    @staticmethod
    def export_tensor_proto(tensor: Constant) -> onnx.TensorProto: ...
