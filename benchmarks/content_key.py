"""What it takes to know that a data set of many files is as it was: CPU seconds beside those of bare `stat` calls.

python benchmarks/content_key.py --rows 500000      # makes so many small files in --folder first, which takes minutes
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from ubt.data.content.known import forget_lists
from ubt.data.csv import CsvFiles

_IN_A_FOLDER = 1000


def main() -> None:
    """Print how long a first look takes, one that remembers the files' digests, one that remembers all, and `stat`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path("many"))
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    os.environ["UBT_CACHE"] = str(folder / "cache")
    paths = [folder / f"{at // _IN_A_FOLDER:04}" / f"{at:07}.jpg" for at in range(asked.rows)]
    for at, path in enumerate(paths):
        if at % _IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"\xff\xd8\xff" + str(at).encode())
    rows = [f"{path},a photo of a thing number {at} of many in a row" for at, path in enumerate(paths)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    (folder / "labels.csv").write_text(
        "\n".join(["image,label", *(f"{path},{at % 2}" for at, path in enumerate(paths[:2000]))])
    )
    (folder / "classes.txt").write_text("one\ntwo\n")
    source = CsvFiles(
        pairs=folder / "pairs.csv",
        labels=folder / "labels.csv",
        classes=str(folder / "classes.txt"),
        templates="simple",
    )

    def anew() -> None:
        forget_lists()
        source.content_key()

    texts = [str(path) for path in paths]
    _show("the first time", anew)
    _show("digests remembered, lists parsed", source.compute_key)
    _show("as it was", anew)
    _show("bare stat", lambda: [os.stat(text) for text in texts])  # noqa: PTH116 — the least it can take


def _show(what: str, run: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    print(f"{what}: {time.process_time() - cpu:.2f} s CPU, {time.perf_counter() - wall:.2f} s wall")


if __name__ == "__main__":
    main()
