"""Everything that reads files, as the mutation campaign sees it."""

from campaign import of_runs, of_sources, of_text
from campaign.reader import Reader


def readers() -> list[Reader]:
    return [*of_sources.readers(), *of_text.readers(), *of_runs.readers()]
