"""What reaches the terminal: messages, warnings, quoted values, waiting."""
