"""Tests of the bridge to lmms-eval."""
