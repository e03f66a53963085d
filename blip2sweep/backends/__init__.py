"""What runs cells: one module a back end, behind the protocol of backend.py."""
