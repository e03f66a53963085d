"""One file for each command of the CLI: from its arguments to what it prints."""
