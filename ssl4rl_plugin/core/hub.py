"""One question to the Hugging Face hub with a short wait, before libraries ask it that try for a minute."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

HUB_SECONDS = 6.0
"""Longest wait for the hub. Without a limit, a machine without a network waits for a minute."""


@dataclass(frozen=True)
class Answer:
    """What the hub says about a model."""

    place: str
    offline: bool = False
    error: str = ""
    status: int = 0
    config: dict[str, Any] | None = None


def ask_hub(name: str, seconds: float = HUB_SECONDS) -> Answer:
    """Ask the hub for a model's config.json, once, within `seconds`. Never raises.

    Through huggingface_hub's own session, so that its endpoint, proxies, certificates and token count.
    """
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # not in its __all__

    place = constants.ENDPOINT
    if constants.is_offline_mode() or os.environ.get("TRANSFORMERS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Answer(place, offline=True)
    found: list[Answer] = []

    def ask() -> None:
        try:
            url, headers = hf_hub_url(name, "config.json"), build_hf_headers()
            reply = get_session().get(url, headers=headers, timeout=seconds, follow_redirects=True)
            content = reply.json() if reply.status_code == 200 else None
            found.append(Answer(place, status=reply.status_code, config=content if isinstance(content, dict) else None))
        except Exception as error:  # of the name service, the connection, or the certificate
            found.append(Answer(place, error=f"{place}: {type(error).__name__}: {error}".splitlines()[0][:200]))

    # A name service that does not answer ignores the session's timeout, so the wait is limited here too.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else Answer(place, error=f"{place}: no answer within {seconds:g} s")
