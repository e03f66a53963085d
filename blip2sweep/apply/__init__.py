"""A recipe into a loaded model, and back bit for bit."""
