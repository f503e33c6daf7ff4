from enum import Enum
from typing import Any

class ParamCategory(Enum):
    NONE = "none"
    PATH = "path"

def validate_config(config: Any, class_: type[Any]) -> Any: ...
