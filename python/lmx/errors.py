"""The exceptions that are lmx's own; shape, dtype and value mistakes raise Python's."""


class Error(Exception):
    """Base of every exception that lmx defines."""


class CorruptIndexError(Error):
    """An n-gram index whose files do not hold what they should; names the file."""


class VersionError(CorruptIndexError):
    """An n-gram index of another format, version or byte order."""


class BuildInProgressError(Error):
    """Another builder is at work on the same index."""
