"""Whether a path names a file that can be read to its end: a pipe would wait for ever."""

import os
import stat


def check_regular(path: str | os.PathLike[str], name: str, what: str) -> None:
    """Looks at the kind of file before anybody opens it.

    Args:
      name: what the message calls the path. what: what was expected there.

    Raises:
      ValueError: one line that begins with the name.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} cannot be read: {why}; expected {what}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name} is a folder, expected {what}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{name} is a device, pipe or socket, expected {what}")
