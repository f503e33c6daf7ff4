"""A pass of Olive (pip install olive-ai): `"type": "OnnxPrune"` in a workflow.

Olive finds passes by a file of packages, which `python -m onnx_prune.tools.plugs.olive_pass > packages.json` writes:
Olive's own passes, and this one. `olive run --config workflow.json --package-config packages.json`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olive.common.config_utils import ParamCategory, validate_config
from olive.data.config import DataConfig
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from ...passes.selection.budget import Budget
from ...pipeline.prune import prune
from ...runtime.data.preprocess import Preprocessing

if TYPE_CHECKING:
    from olive.hardware import AcceleratorSpec

    from ...pipeline.write import Result

BUDGETS = ("macs", "params", "size", "latency", "channels")
_PATHS = ("moments", "evaluate")  # calibration may be module:function
_OLIVES = ("model", "budget", "preprocessing", "save_moments", "device", "progress")  # what it says in its own way
_IMAGES = ("mean", "std", "resize", "crop", "scale", "layout")


class OnnxPrune(Pass):
    """Remove channels until a budget holds, prove the result, refit what stays: the arguments are those of `prune`.

    Calibration data are a path or module:function (`calibration`), or Olive's own (`data_config`).
    """

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:  # noqa: ARG003 - Olive's
        """Every option, with the default of `prune`, as Olive wants it."""
        known = inspect.signature(prune).parameters
        kinds: dict[str, Any] = {
            **{name: _kind(argument.default) for name, argument in known.items() if name not in _OLIVES},
            **dict.fromkeys(BUDGETS, str | None),
            **dict.fromkeys(_IMAGES, float | str | list[float] | None),
            "align": int | str,
            "evaluate_samples": int | None,
            "max_drop": float | str | None,
            "sizes": dict[str, int] | None,
            "data_config": DataConfig | dict | None,
        }
        return {name: _param(name, kind) for name, kind in kinds.items()}

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        given: dict[str, Any] = {k: v for k, v in config.model_dump().items() if v is not None}
        result = prune(model.model_path, **arguments(given, str(self.accelerator_spec.accelerator_type)))
        return _handler(result, Path(resolve_onnx_path(output_model_path)))


def arguments(given: dict[str, Any], accelerator: str) -> dict[str, Any]:
    """A configuration of the pass as arguments of `prune`."""
    budget = {name: given[name] for name in BUDGETS if name in given}
    images = {name: given[name] for name in _IMAGES if name in given}
    names = set(inspect.signature(prune).parameters) & set(given)
    chosen = {name: given[name] for name in names}
    if budget:
        chosen["budget"] = Budget(**budget)
    if images:
        chosen["preprocessing"] = Preprocessing(**images)
    if "data_config" in given:
        chosen["calibration"] = _loader(given["data_config"])
    return chosen | {"device": "cuda" if accelerator.lower() == "gpu" else "cpu"}


def packages() -> dict[str, Any]:
    """Olive's file of packages, with this pass among its own."""
    known = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    known["passes"]["OnnxPrune"] = {
        "module_path": f"{__spec__.name if __spec__ else __name__}.OnnxPrune",
        "supported_providers": ["*"],
        "supported_accelerators": ["cpu", "gpu"],
        "supported_precisions": ["*"],
        "dataset": "dataset_optional",
    }
    return known


def _loader(given: object) -> Any:  # noqa: ANN401 - a DataLoader of whatever the user's data are
    return validate_config(given, DataConfig).to_data_container().create_calibration_dataloader()


def _handler(result: Result, path: Path) -> ONNXModelHandler:
    """The written model, with its plan beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save(path)
    result.plan.save(path.with_name(f"{path.stem}.plan.json"))
    if result.external:
        return ONNXModelHandler(model_path=str(path.parent), onnx_file_name=path.name)
    return ONNXModelHandler(model_path=str(path))


def _kind(default: object) -> Any:  # noqa: ANN401 - a type
    """Of an argument with that default; None stands for words."""
    if isinstance(default, bool):
        return bool
    return int | None if isinstance(default, int) else str | None


def _param(name: str, kind: Any) -> PassConfigParam:  # noqa: ANN401 - a type
    known = inspect.signature(prune).parameters.get(name)
    return PassConfigParam(
        type_=kind,
        default_value=None if known is None else known.default,
        category=ParamCategory.PATH if name in _PATHS else ParamCategory.NONE,
        description=f"onnx-prune's {name}",
    )


if __name__ == "__main__":
    print(json.dumps(packages(), indent=2))
