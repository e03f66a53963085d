"""OpenVINO's own files (IR): graphs of a model with the integers of its recipe in them."""

import sys

# OpenVINO and NNCF report each use to their authors, unless this cannot be imported. A worker reports nothing to anybody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
