"""What talks to Core ML: coremltools' `MLModelBenchmarker`, on this Mac or on an attached device.

The clock is Core ML's own, the duration of `-[MLModel predictionFromFeatures:error:]` that coremltools reports: Python,
the copies of inputs and outputs and, for a phone, the transfers are not in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from mvnas.backends._quiet import quiet
from mvnas.errors import ExportError

with quiet():
    import coremltools as ct
    from coremltools.models.compute_device import MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
    from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceState

NAMES = {MLCPUComputeDevice: "CPU", MLGPUComputeDevice: "GPU", MLNeuralEngineComputeDevice: "Neural Engine"}


class Session:
    """A model that Core ML has loaded, here or on `device`, and has run once."""

    def __init__(self, path: Path, units: ct.ComputeUnit, device: Device | None) -> None:
        model = ct.models.MLModel(str(path), compute_units=units, skip_model_load=True)  # the benchmarker loads it
        self.benchmarker = MLModelBenchmarker(model, device)
        self.ms(1)

    def ms(self, runs: int) -> list[float]:
        """Milliseconds of each of some runs in a row."""
        return list(_wait(self.benchmarker.benchmark_predict(iterations=runs)).samples)

    def ops(self, runs: int) -> list[MLModelBenchmarker.OperationExecutionInfo]:
        """Each op with its device, and of each of some runs the share that the compute plan gives to it, in ms."""
        return list(_wait(self.benchmarker.benchmark_operation_execution(iterations=runs)))

    def close(self) -> None:
        """Unload the model; coremltools itself would leave it on a phone."""
        _wait(self.benchmarker._loaded_model.unload())


@cache
def attached(name: str, team: str) -> Device:
    """The attached and connected device `name`, with the app on it that runs models, signed by a development team.

    Raises:
        ExportError: there is no such device, or the app cannot be built, installed or launched.
    """
    devices = _wait(asyncio.to_thread(Device.get_devices))
    found = [device for device in devices if name in (device.name, device.udid)]
    if not found or found[0].state is not DeviceState.CONNECTED:
        told = ", ".join(f"{device.name} ({device.state.value})" for device in devices) or "none"
        raise ExportError(
            f"a device must be attached, unlocked and connected to be measured, but {name!r} is not; found: {told}"
        )
    return _wait(found[0].prepare_for_model_debugging(AppSigningCredentials(development_team=team)))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """A loop that runs for good: coremltools' services are bound to the one that they are made in."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _wait(work: Coroutine[Any, Any, Any]) -> Any:
    with quiet():
        try:
            return asyncio.run_coroutine_threadsafe(work, _loop()).result()
        except Exception as error:
            raise ExportError(f"Core ML must run the model, but coremltools says: {error}") from error
