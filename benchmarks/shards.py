"""WebDataset shards on S3, which moto plays on this machine: decoded as they are read, and copied first.

python benchmarks/shards.py --folder shards               # 8 shards of 500 pairs of 341 × 256 pixels, to 224 px

Seconds on a clock and of CPU (the server's, which is a thread of the same process, among them), what copies take on
disk at most, and the key, which is the same. One process decodes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from PIL import Image

from ubt.data.webdataset import WebDataset

SHARDS, PAIRS = 8, 500


def main() -> None:
    """Make the shards, load them both ways in a process each, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--one", choices=["copied", "as read"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.one:
        print(json.dumps(loaded(folder, given.one)))
        return
    make(folder)
    for _ in range(2):
        for how in ("copied", "as read"):
            said = subprocess.check_output([sys.executable, __file__, "--folder", str(folder), "--one", how], text=True)
            print(how, said.strip().splitlines()[-1])


def make(folder: Path) -> None:
    """Make shards, and a few labelled images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = ["image,label"]
    for at in range(8):
        Image.fromarray(np.full((40, 40, 3), at * 30, dtype=np.uint8)).save(folder / "images" / f"{at}.png")
        rows.append(f"images/{at}.png,{at % 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("cat\ndog\n")
    for at in range(SHARDS):
        if (folder / f"{at:05}.tar").exists():
            continue
        with tarfile.open(folder / f"{at:05}.tar", "w") as tar:
            for one in range(at * PAIRS, (at + 1) * PAIRS):
                for suffix, content in (("jpg", photo(one)), ("txt", f"a photo, number {one}".encode())):
                    member = tarfile.TarInfo(f"{one:07}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))


def photo(seed: int) -> bytes:
    """Return the bytes of a JPEG file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def loaded(folder: Path, how: str) -> dict[str, object]:
    """Load the shards from S3 into an empty cache."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    os.environ["UBT_CACHE"] = str(cache)
    if how == "copied":
        WebDataset.can_stream = False
    settings = {"labels": str(folder / "labels.csv"), "classes": str(folder / "classes.txt"), "decode_workers": 1}
    pairs = f"s3://shards/{{00000..{SHARDS - 1:05}}}.tar"
    client = s3()
    for at in range(SHARDS):
        client.upload_file(str(folder / f"{at:05}.tar"), "shards", f"{at:05}.tar")
    with Disk(cache / "shards") as disk:
        data = WebDataset.model_validate({"pairs": pairs, **settings})
        began, cpu = time.perf_counter(), time.process_time()
        data.load(224, cache / "images")
        key = data.content_key()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "copies_mb": round(disk.most / 1e6), "key": key[:12]}


def s3() -> Any:  # noqa: ANN401 — boto3's clients are made at run time
    """Start a server with a bucket, set the environment for it, and return its client."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_DEFAULT_REGION="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    client = boto3.client("s3")
    client.create_bucket(Bucket="shards")
    return client


class Disk:
    """The most that the files in a folder take, and those without a name that this process has open there."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._over, self.most = folder, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Disk:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, sum(self._sizes()))

    def _sizes(self) -> list[int]:
        named = [file for file in self._folder.rglob("*") if file.is_file()]
        opened = [file for file in Path("/proc/self/fd").iterdir() if _leads_to(file, self._folder)]
        return [_size(file) for file in (*named, *opened)]


def _leads_to(file: Path, folder: Path) -> bool:
    try:
        there = str(file.readlink())
    except OSError:
        return False
    return there.startswith(str(folder)) and there.endswith("(deleted)")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    main()
