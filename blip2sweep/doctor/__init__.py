"""Checks that everything a sweep needs is there."""
