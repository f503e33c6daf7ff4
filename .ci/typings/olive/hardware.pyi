from typing import Any

class AcceleratorSpec:
    accelerator_type: Any
