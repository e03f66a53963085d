"""Training after compression: batches, loss, the loop and its checkpoints, one process or several."""
