"""The version of this package, below all rooms: back ends say it in their rows."""

VERSION = "0.1.0"
