"""What a command prints of a user's mistakes: the first on the screen, and where all of them are listed."""

from __future__ import annotations

from ubt.common.atomic_files import write_whole
from ubt.common.errors import LISTED, UserError
from ubt.common.hashing import digest_bytes
from ubt.common.paths import cache_root


def mistakes_text(error: UserError) -> str:
    """Return the first `LISTED` problems; if there are more, all are in a file that the last line names.

    The same problems are listed in the same file, in `$UBT_CACHE`, however often they are met.
    """
    problems = [f"  {problem}" for problem in error.problems]
    count = len(problems)
    title = "1 problem:" if count == 1 else f"{count:,} problems:"
    if count <= LISTED:
        return "\n".join([title, *problems])
    more = f"  and {count - LISTED:,} more"
    content = "\n".join([title, *problems, ""]).encode(errors="backslashreplace")
    try:
        path = write_whole(cache_root() / "problems" / f"problems-{digest_bytes(content)[:12]}.txt", content)
    except (OSError, UserError) as trouble:
        return "\n".join([title, *problems, f"  (they could not be listed in a file: {trouble})"])
    return "\n".join([title, *problems[:LISTED], more, f"All {count:,} are listed in {path}"])
