"""OpenVINO on a CPU: runs what `exporting/ir` writes."""

import sys

# OpenVINO and NNCF report each use to their authors, unless this cannot be imported. A worker reports nothing to anybody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
