"""Whether everything is here that a sweep needs."""
