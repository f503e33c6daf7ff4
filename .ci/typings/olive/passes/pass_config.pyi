from typing import Any

from ..common.config_utils import ParamCategory

class BasePassConfig:
    def model_dump(self) -> dict[str, Any]: ...

class PassConfigParam:
    default_value: Any
    def __init__(self, *, type_: Any, default_value: Any, category: ParamCategory, description: str) -> None: ...
