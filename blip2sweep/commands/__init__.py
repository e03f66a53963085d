"""One file a verb: what a command does from its arguments to what it prints."""
