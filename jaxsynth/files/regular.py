"""Whether a path names a file that can be read to its end: a pipe would wait for ever."""

import os
import stat


def problem_with(path: str | os.PathLike[str], what: str = "a file") -> str:
    """What is wrong with the path, as the end of a sentence that it begins, or "".

    `what` says what was expected.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}; expected {what}"
    if stat.S_ISDIR(mode):
        return f"is a folder, expected {what}"
    if not stat.S_ISREG(mode):
        return f"is a device, pipe or socket, expected {what}"
    return ""
