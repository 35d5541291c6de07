"""The base class of all errors that a user can correct.

The command line and preflight print a `UserError` as one message, without a traceback. Any other exception is a bug, in
this package or in another one, and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """A setting, a file or an installation is wrong. The message says what, where (file, row, key), and what to do."""
