"""All workers of a server together: whether there are cores enough for them to poll for work."""

from __future__ import annotations

from marserve.supervisor.link import Link
from marserve.wire import page


class Crowd:
    """Lets workers look for work before they block, while there are fewer of them than cores.

    Args:
        cores: cores of the machine.
        poll_seconds: how long a worker looks.
    """

    def __init__(self, cores: int, poll_seconds: float) -> None:
        self._cores = cores
        self._poll_microseconds = int(poll_seconds * 1e6)
        self._links: set[Link] = set()

    def join(self, link: Link) -> None:
        """A worker is ready."""
        self._links.add(link)
        self._tell()

    def leave(self, link: Link) -> None:
        """A worker is ready no more."""
        if link in self._links:
            self._links.remove(link)
            link.words[page.POLL_MICROSECONDS] = 0
            self._tell()

    def _tell(self) -> None:
        microseconds = self._poll_microseconds if len(self._links) < self._cores else 0
        for link in self._links:
            link.words[page.POLL_MICROSECONDS] = microseconds
