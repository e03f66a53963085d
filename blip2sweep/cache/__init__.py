"""Results kept for the next cell: tensors in memory, bytes on disk."""
