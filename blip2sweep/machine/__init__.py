"""Facts about the machine: memory, processes, credentials."""
