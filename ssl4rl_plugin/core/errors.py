"""The one base of all errors that a user can put right.

The command line and the check before a run print a `UserError` as one message, without a traceback. Every other
exception is a bug, of this package or of another one, and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something outside of the code is wrong: a setting, a file, an installation.

    The message says what is wrong, where (file, row, key), and what to do.
    """
