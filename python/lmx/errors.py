"""The exceptions that are lmx's own; shape, dtype and value mistakes raise Python's."""


class Error(Exception):
    """Base of every exception that lmx defines."""
