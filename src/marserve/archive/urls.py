"""Which URLs an operator allows: expressions, one of which has to match a URL as a whole, letter case aside."""

from __future__ import annotations

import re
from typing import Iterator, Sequence

from marserve.errors import ConfigError


def matching(url: str, expressions: Sequence[str], setting: str) -> Iterator[str]:
    """Yield the expressions that match a URL as a whole, without regard to case.

    Raises:
        ConfigError: one is broken; ``setting`` is the name of the setting that it is in.
    """
    for expression in expressions:
        try:
            is_match = re.fullmatch(expression, url, re.IGNORECASE) is not None
        except re.error as error:
            raise ConfigError(f"{setting} has a broken expression {expression!r}: {error}.", "Correct it.") from error
        if is_match:
            yield expression
