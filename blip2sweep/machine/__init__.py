"""What the operating system says: memory, processes, credentials."""
