"""OpenVINO on a CPU: runs what `exporting/ir` writes."""
