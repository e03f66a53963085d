"""OpenVINO's own files (IR): graphs of a model with the integers of its recipe in them."""
