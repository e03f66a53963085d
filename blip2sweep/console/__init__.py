"""Output to the terminal: messages, warnings, quoted values, progress."""
