"""The version: of the package, of the command, and in the provenance of what they write."""

__version__ = "0.1.0"
