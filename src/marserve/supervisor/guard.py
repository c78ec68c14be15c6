"""The guard: a tiny process that tidies up after a server that is killed and cannot do it itself.

A worker dies with its server by the system's own doing, but what the service in it has started does not. The guard
holds the other end of a pipe on which the server tells which process groups there are. The pipe ends with the
server, however that ends, and the guard then kills the groups that are left, and removes the server's folder with
all that is in it. It is a shell script because that is the smallest thing that can wait: one megabyte.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

#: Reads "+ group" and "- group"; at the end of the pipe, kills the groups that are left and removes the folder $1.
SCRIPT = """
trap '' INT TERM HUP
groups=
while read -r sign group; do
    if [ "$sign" = + ]; then groups="$groups $group"; continue; fi
    left=
    for one in $groups; do [ "$one" = "$group" ] || left="$left $one"; done
    groups=$left
done
for one in $groups; do kill -KILL "-$one" 2>/dev/null; done
rm -rf "$1"
"""


class Guard:
    """Tells the guard process about the groups of the workers.

    Args:
        folder: the server's own, with the sockets of the gate and of ranks, and torchrun's logs.
    """

    def __init__(self, folder: Path) -> None:
        reading, self._writing = os.pipe()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "guard", str(folder)], stdin=reading, cwd="/", env={}, start_new_session=True
        )
        os.close(reading)

    def watch(self, group: int) -> None:
        """End this process group when the server is killed."""
        self._tell(b"+ %d\n" % group)

    def forget(self, group: int) -> None:
        """The group has ended: its number may come to be somebody else's."""
        self._tell(b"- %d\n" % group)

    def _tell(self, line: bytes) -> None:
        # A guard that somebody has killed is missed only if the server is killed too.
        with contextlib.suppress(OSError):
            os.write(self._writing, line)

    def close(self) -> None:
        """Let the guard end; what it still knows is killed."""
        os.close(self._writing)
        self._process.wait()
