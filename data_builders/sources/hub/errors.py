"""What can go wrong between here and the Hugging Face Hub, each in one sentence that says what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.source import SourceError

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def hub_page(repo: str) -> str:
    """The address of a data set's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


@contextmanager
def explained(name: str, revision: str | None = None, source: str = "hf", otherwise: str = "") -> Iterator[None]:
    """Raise SourceError, in plain words, for what `datasets` and `huggingface_hub` raise inside.

    Args:
        name: the data set, or the local folder.
        revision: the revision that was asked for; None for a local folder.
        source: name of the source.
        otherwise: another way to the files, for the end of the message.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # on strange repositories `datasets` raises nearly anything
        text = f"source {source!r}: {_said(error, name, revision)}"
        raise SourceError(f"{text}; {otherwise}" if otherwise else text) from error


def unreachable(error: BaseException) -> str | None:
    """Why the Hub does not answer, for errors of the network and of the Hub's own machines; None for other errors."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            code = cause.response.status_code
            return f"the Hub answers with HTTP {code}" if code >= 500 or code == 429 else None
        if isinstance(cause, httpx.TransportError):
            from huggingface_hub import constants

            what = _first_line(cause)
            return f"the Hub ({constants.ENDPOINT}) cannot be reached ({what})"
    return None


def _said(error: Exception, name: str, revision: str | None) -> str:
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, GatedRepoError):
            first = f"accept its terms at {hub_page(name)}" + (
                ""
                if cause.response.status_code == 401
                else " with the account of your token, and wait until it is granted"
            )
            return f"the data set {name} is gated: {first}, then {_LOG_IN}"
        if isinstance(cause, DisabledRepoError):
            return f"the Hub has disabled the data set {name} ({hub_page(name)}): choose another"
        if isinstance(cause, RevisionNotFoundError):
            return f"the data set {name} has no revision {revision!r}{_revisions(name)}; correct the option `revision`"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"there is no folder {name}, and no data set {name} on the Hub, or it is private: correct the name, or, if "
                f"your account sees it, {_LOG_IN}"
            )
        if isinstance(cause, OfflineModeIsEnabled):
            return f"the data set {name} is not in the cache, and HF_HUB_OFFLINE is set: index it once with a network"
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403):
            return f"the Hub refuses your token for the data set {name} (HTTP {cause.response.status_code}): {_LOG_IN} again"
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"the disk is full while {name} is downloaded: free some space, or set HF_HOME to a folder on a larger "
                "disk, and start again; finished files are kept"
            )
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f"the cache cannot be written ({_first_line(cause)}): set HF_HOME to a folder that you may write"
        if isinstance(cause, RuntimeError) and "scripts are no longer supported" in str(cause):
            return (
                f"{name} has a loading script, and no code of a data set runs here: use the Hub's own conversion with "
                "--option revision=refs/convert/parquet"
            )
    reason = unreachable(error)
    if reason is None and isinstance(error, LocalEntryNotFoundError):
        reason = "the Hub cannot be reached"
    if reason is not None:
        return f"{reason}, and the data set {name} is not complete in the cache: check the network, and start again"
    if isinstance(error, FileNotFoundError):
        return f"{name} has no data files that `datasets` knows ({_first_line(error)})"
    return f"`datasets` cannot open {name} ({type(error).__name__}: {_first_line(error)})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _revisions(name: str) -> str:
    """The branches and tags of a data set, for a message; empty if the Hub does not tell."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi(library_name="ssl4rl-plugin").list_repo_refs(name, repo_type="dataset")
    except Exception:  # the message is complete without them
        return ""
    names = [ref.name for ref in [*refs.branches, *refs.tags]]
    return f", but: {', '.join(names[:20])}" if names else ""


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:300] or type(error).__name__
