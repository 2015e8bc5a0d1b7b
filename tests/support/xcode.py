"""Performance reports as Xcode writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_report(path: Path, samples: object = (0.003, 0.002, 0.004), **changes: Any) -> Path:
    """An Xcode performance report as far as it is read; made up, not Xcode's."""
    path.mkdir()
    device = {"modelName": "iPhone 16", "osNameAndVersionWithoutBuildNumber": "iOS 26.3.1"}
    report = {
        "modelMetadata": {"fileName": "mobilevit_xs"},
        "deviceInfo": device,
        "computeUnit": 3,
        "deviceResults": {"predict": {"samples": samples, "numOperations": 200}},
    }
    (path / "report.json").write_text(json.dumps(report | changes))
    return path
