"""What the builders say to a user: one line of what, where and what to do."""


class RecordError(ValueError):
    """One record can't be used; the message names the file and says why."""


class SourceError(ValueError):
    """The source folder as a whole can't be used."""
