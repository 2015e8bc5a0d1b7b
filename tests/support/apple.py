"""Core ML and an attached iPhone as coremltools' own Python meets them: a native library, and answers to remote calls.

Nothing here was recorded on Apple's hardware. The answers have the form that coremltools 9 reads (remote_device.py,
compute_plan.py), made up by arithmetic: an op costs its output and its constants, and all that computes runs on the
Neural Engine but softmax, which runs on the CPU.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import coremltools as ct
import pytest
from coremltools.models import compute_device, compute_plan
from coremltools.models import model as ct_model
from coremltools.models.ml_program.experimental import async_wrapper, compute_plan_utils, remote_device

PHONE = {
    "identifier": "5A8B5B6E-0F1C-4F6E-9D0A-3C2B1A000001",
    "deviceProperties": {
        "name": "Test iPhone",
        "osVersionNumber": "18.2",
        "osBuildUpdate": "22C152",
        "developerModeStatus": "enabled",
    },
    "hardwareProperties": {"udid": "00008110-000A1B2C3D4E001E", "deviceType": "iPhone"},
    "connectionProperties": {"tunnelState": "connected"},
}
AWAY = PHONE | {
    "deviceProperties": PHONE["deviceProperties"] | {"name": "Other iPhone"},
    "connectionProperties": {"tunnelState": "disconnected"},
}
NEURAL, CPU = {"neuralEngine": {"totalCoreCount": 16}}, {"cpu": {}}


class Native(ModuleType):
    """What stands for coremltools.libcoremlpython, the compiled module that only its macOS wheels hold."""

    def __init__(self) -> None:
        super().__init__("coremltools.libcoremlpython")
        for name in ("ComputePlan", "CPUComputeDevice", "GPUComputeDevice", "NeuralEngineComputeDevice"):
            setattr(self, f"_ML{name}Proxy", type(f"_ML{name}Proxy", (), {}))
        self._MLModelProxy = Model


class Model:
    """A model loaded on this machine."""

    loaded: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, path: str, units: str, function: str, hints: dict[str, str], asset: None) -> None:
        self.path = path + ".mlmodelc"
        shutil.copytree(path, self.path)  # compiled: the package is removed once it is loaded
        self.loaded.append((path, units))
        self.taken: int | None = None

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return 9

    def predict(self, inputs: dict[str, Any], state: None) -> dict[str, Any]:
        self.taken = round(1e6 * predict_ms(self.path))
        return {}

    def get_last_predict_duration_in_nano_seconds(self) -> int | None:
        return self.taken

    def get_compiled_model_path(self) -> str:
        return self.path

    @staticmethod
    def get_model_structure(path: str) -> compute_plan.MLModelStructure:
        ops = [
            compute_plan.MLModelStructureProgramOperation(
                inputs={},
                operator_name=f"ios16.{op.type}",
                outputs=[compute_plan.MLModelStructureProgramNamedValueType(out.name, None) for out in op.outputs],
                blocks=[],
                __proxy__=None,
            )
            for op in operations(path)
        ]
        block = compute_plan.MLModelStructureProgramBlock(inputs=[], operations=ops, output_names=["y"])
        main = compute_plan.MLModelStructureProgramFunction(inputs=[], block=block)
        return compute_plan.MLModelStructure(None, compute_plan.MLModelStructureProgram({"main": main}), None)

    @classmethod
    def get_compute_plan(cls, path: str, units: str) -> compute_plan.MLComputePlan:
        """As the phone answers: coremltools reads both with the same classes."""
        proxy = compute_plan_utils._MLComputePlanRemoteProxy(
            device=None,
            compute_plan=remote_device.ComputePlan.from_dict({"infos": plan(path)}),
            model_structure=cls.get_model_structure(path),
        )
        return compute_plan.MLComputePlan(proxy)


class Phone(remote_device._RemoteService):
    """The app on an attached phone: what it answers to each method."""

    models: ClassVar[dict[str, Path]] = {}

    def __init__(self, socket: None) -> None:
        pass

    async def call_method(self, name: str, params: dict[str, Any], resource: Path | None = None) -> Any:
        answer: dict[str, Any] = {"modelID": params["modelID"]}
        if name == "MLModelService.Load":
            assert resource is not None
            self.models[params["modelID"]] = resource
            answer["duration"] = 5_000_000
        elif name == "MLModelService.Prediction":
            answer |= {"outputs": {}, "duration": round(1e6 * predict_ms(self.models[params["modelID"]]))}
        elif name == "MLModelService.ComputePlan":
            answer["infos"] = plan(self.models[params["modelID"]])
        else:
            assert name == "MLModelService.Unload"
            del self.models[params["modelID"]]
        return answer, resource


def operations(path: Path | str) -> list[Any]:
    (function,) = ct.utils.load_spec(str(path)).mlProgram.functions.values()
    return list(function.block_specializations[function.opset].operations)


def cost_ms(op: Any, constants: dict[str, int]) -> float:
    """What an op takes: 1e-5 ms for each element of its output and of its constants, and a microsecond."""
    read = [binding.name for argument in op.inputs.values() for binding in argument.arguments]
    return 1e-3 + 1e-5 * (elements(op.outputs[0]) + sum(constants.get(name, 0) for name in read))


def elements(value: Any) -> int:
    return prod(dimension.constant.size for dimension in value.type.tensorType.dimensions)


@cache
def costs(path: Path | str) -> dict[str, float]:
    """Milliseconds of each op of a file that is not a constant, by the name of its output."""
    ops = operations(path)
    constants = {op.outputs[0].name: elements(op.outputs[0]) for op in ops if op.type == "const"}
    return {op.outputs[0].name: cost_ms(op, constants) for op in ops if op.type != "const"}


def predict_ms(path: Path | str) -> float:
    return sum(costs(path).values())


def plan(path: Path | str) -> list[dict[str, Any]]:
    """The compute plan of a file, as JSON: constants have no cost."""
    taken = costs(path)
    kinds = {op.outputs[0].name: op.type for op in operations(path)}
    rows = []
    for name, kind in kinds.items():
        components = [
            {"program": {}},
            {"programFunction": {"data": {"name": "main"}}},
            {"programBlock": {"data": {"index": -1}}},
            {"programOperation": {"data": {"outputName": name}}},
        ]
        usage = {"preferred": CPU if kind in ("const", "softmax") else NEURAL, "supported": [CPU, NEURAL]}
        share = taken[name] / sum(taken.values()) if name in taken else None
        rows.append({"path": {"components": components}, "deviceUsage": usage, "estimatedCost": share})
    return rows


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """coremltools as it is on a Mac, with one iPhone attached and another one known."""
    from mvnas.backends import coreml
    from mvnas.backends.coreml import _device

    native = Native()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, native.__name__, native)
        for module in (compute_device, compute_plan, ct_model):
            for name in vars(native):
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(native, name))
        importlib.reload(compute_plan_utils)  # its proxies derive from the native ones
        patch.setattr(
            async_wrapper, "compile_model", lambda model, destination_path: shutil.copytree(model, destination_path)
        )
        patch.setattr(remote_device._DeviceCtl, "_run_command", lambda command: {"result": {"devices": [PHONE, AWAY]}})
        patch.setattr(remote_device.Device, "_build_and_launch_model_runner_app", lambda *_: object())
        patch.setattr(remote_device._RemoteMLModelService, "_validate_device_state", lambda device: None)
        patch.setattr(remote_device, "_DeviceCtlSocket", lambda **_: None)
        patch.setattr(remote_device, "_DeviceCtlRemoteService", Phone)
        patch.setattr(coreml.Backend, "runs_here", True)
        patch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
        patch.setattr(coreml, "_chip", lambda: {"cpu": "Apple M0"})
        _device.attached.cache_clear()
        yield
        while coreml._sessions:
            coreml._sessions.popitem()[1].close()
        Model.loaded.clear()
    importlib.reload(compute_plan_utils)
