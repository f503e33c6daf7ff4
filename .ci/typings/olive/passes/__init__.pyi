from ..hardware import AcceleratorSpec

class Pass:
    accelerator_spec: AcceleratorSpec
