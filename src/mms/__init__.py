"""Multi Model Server's package for whoever imports it where marserve is installed: its modules are those of workers.

They lie in ``marserve/compat/mms``. Workers put that folder on their path instead, because theirs may hold nothing
but the standard library and marserve.
"""

from pathlib import Path

import marserve

__path__ = [str(Path(marserve.__file__).parent / "compat" / "mms")]

from mms.version import __version__

__all__ = ["__version__"]
