"""Fetch the libraries that the report's page contains, from npm: pinned, and with their checksums.

python docs/vendor.py
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "analysis" / "templates" / "vendored"
PACKAGE = "tabulator-tables@6.5.3"
SHA512 = "nJ2QaqZzQvd9B4rf4LBnRxfb6sSqA/BX2OsXnSJ2d8k21oXDSTtFtOUrDap04a/6BDGivC/MByCxy43ugadJIg=="
FILES = {
    "package/dist/js/tabulator.min.js": "tabulator.min.js",
    "package/dist/css/tabulator_simple.min.css": "tabulator.min.css",
    "package/LICENSE": "tabulator.LICENSE",
}


def main() -> None:
    """Write the files; exit with an error if the package is not the one that is meant."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (packed,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != SHA512:
            raise SystemExit(f"{PACKAGE} has the checksum {found}, not {SHA512}")
        with tarfile.open(packed) as archive:
            for member, name in FILES.items():
                text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]  # a file, not a folder
                # Its map is not there: a browser's tools would ask for it.
                text = re.sub(r"(/\*|//)# sourceMappingURL=.*", "", text)
                (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
