"""Secrets in what is shown or written down: addresses may hold a user, a password, a signature."""

from __future__ import annotations

import re

# A password may hold `/` and `@` when somebody forgot to escape it: up to the last `@` is hidden, so that an
# address is rather shown too short than with half a password.
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^/\s:@\"'<>]*:[^\s\"'<>]*@|(?<=://)[^/\s@\"'<>]+@")
_NAMES = "password|passwd|pwd|token|secret|key|signature|credential|auth"
_SECRET_IN_QUERY = re.compile(rf"(?i)([?&;](?:[^=&;\s]*(?:{_NAMES})[^=&;\s]*|sig)=)[^&;\s\"'<>]+")


def without_credentials(text: str) -> str:
    """Return `text`, an address or a message that quotes one, without its user, password, keys and signatures.

    Example:
        >>> without_credentials("https://ann:s3cret@host/a.tar?X-Amz-Signature=abc&part=1")
        'https://host/a.tar?X-Amz-Signature=…&part=1'
    """
    if "://" not in text:
        return text
    return _SECRET_IN_QUERY.sub(r"\1…", _USER_AND_PASSWORD.sub("", text))
