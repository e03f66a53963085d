"""What builds and runs TensorRT-LLM's engines of a cell's model, on another machine with a GPU."""
