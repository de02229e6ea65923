"""The exceptions that are lmx's own; shape, dtype and value mistakes raise Python's."""


class Error(Exception):
    """Base of every exception that lmx defines."""


class CorruptIndexError(Error):
    """An n-gram index whose files do not hold what they should; names the file."""


class VersionError(CorruptIndexError):
    """An n-gram index of another format, version or byte order."""


class BuildInProgressError(Error):
    """Another builder is at work on the same index."""


class GrammarError(Error):
    """A grammar that cannot be compiled: an undefined rule, a language without strings."""


class GrammarSyntaxError(GrammarError):
    """Text that is no grammar or pattern; says where, and what was expected there."""


class UnsupportedRegexError(GrammarError):
    """A pattern with something that no automaton can do, such as a backreference; says where."""


class UnsupportedSchemaError(GrammarError):
    """A keyword of a JSON schema that cannot be honoured exactly: its pointer and the reason."""


class UnsatisfiableSchemaError(GrammarError):
    """A JSON schema that no value fits, or that refers to itself without end."""


class GrammarLimitError(GrammarError):
    """A budget of states, steps or time is used up; the matcher is as it was before the call."""


class StaleHandle(Error):
    """A handle whose object is gone."""


class OutOfPages(Error):
    """A page pool that cannot give the pages of a call; nothing was changed."""

    def __init__(self, needed: int, free: int) -> None:
        """Say how many pages the call needs and how many are free."""
        super().__init__(f"{needed} pages are needed, and {free} are free")
        self.needed = needed
        self.free = free


class OutOfRows(Error):
    """A cache all of whose rows are taken by sequences; nothing was changed."""
