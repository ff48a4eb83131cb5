import io
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from photographs import photo

from ubt.common.errors import UserError
from ubt.data import images as image_cache
from ubt.data.decode import decode_image
from ubt.data.webdataset import WebDataset


def write_shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def pairs(*seeds):
    return {
        name: content
        for seed in seeds
        for name, content in (
            (f"{seed:04}.png", photo(seed)),
            (f"{seed:04}.txt", f"number {seed}\n".encode()),
        )
    }


@pytest.fixture
def shards(tmp_path):
    """Three shards with two pairs each."""
    for index in range(3):
        write_shard(tmp_path / f"train-{index:03}.tar", pairs(2 * index, 2 * index + 1))
    return tmp_path


@pytest.fixture
def source(photos, shards):
    def build(**changes):
        return WebDataset.model_validate({"pairs": f"{shards}/train-{{000..002}}.tar", **photos.settings, **changes})

    return build


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_pairs_come_in_the_order_of_the_shards(source, tmp_path):
    data = source().load(24, tmp_path / "cache")
    assert list(data.train.captions) == [f"number {seed}" for seed in range(6)]
    for seed in range(6):
        np.testing.assert_array_equal(data.train.images[seed], decode_image(photo(seed), 24))
    assert (len(data.val), len(data.test)) == (6, 6)


def test_the_first_pairs_are_used_if_so_many_are_asked_for(source, tmp_path):
    data = source(max_pairs=3).load(24, tmp_path / "cache")
    assert list(data.train.captions) == ["number 0", "number 1", "number 2"]
    assert len(source(max_pairs=99).load(24, tmp_path / "cache").train) == 6


def test_all_names_of_image_files_are_known_and_other_members_left_out(source, shards, tmp_path):
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "JPG": "JPEG"}
    members = {"__info__": b"{}", "README": b"no suffix"}
    for key, (suffix, kind) in enumerate(kinds.items()):
        members |= {
            f"{key}.{suffix}": photo(key, kind=kind),
            f"{key}.json": b"{}",
            f"{key}.txt": b"a caption",
        }
    path = write_shard(shards / "kinds.tar", members)
    data = source(pairs=str(path)).load(24, tmp_path / "cache")
    assert len(data.train) == 5
    for image, (key, kind) in zip(data.train.images, enumerate(kinds.values()), strict=True):
        np.testing.assert_array_equal(image, decode_image(photo(key, kind=kind), 24))


def test_two_colons_join_patterns_as_open_clip_users_write_them(source, shards, tmp_path):
    joined = source(pairs=f"{shards}/train-002.tar::{shards}/train-{{000,001}}.tar")
    captions = joined.load(24, tmp_path / "cache").train.captions
    assert list(captions) == [f"number {seed}" for seed in (4, 5, 0, 1, 2, 3)]


def test_a_second_load_opens_no_shard(source, tmp_path, monkeypatch):
    first = source().load(24, tmp_path / "cache")
    monkeypatch.setattr("ubt.data.shards._grouped", lambda path: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(image_cache, "decode_images", lambda *_: pytest.fail("decoded again"))
    again = source().load(24, tmp_path / "cache")
    assert list(again.train.captions) == list(first.train.captions)
    np.testing.assert_array_equal(again.train.images, first.train.images)


def test_many_pairs_are_decoded_by_processes_to_the_same_pixels(source, shards, tmp_path):
    path = write_shard(shards / "many.tar", pairs(*range(image_cache.FEW + 10)))
    shared = source(pairs=str(path), decode_workers=2).load(24, tmp_path / "two").train.images
    alone = source(pairs=str(path), decode_workers=1).load(24, tmp_path / "one").train.images
    np.testing.assert_array_equal(shared, alone)


class TestContentKey:
    def test_it_depends_on_the_content_of_the_shards_and_not_on_their_names(self, source, shards):
        before = source().content_key()
        for index in range(3):
            (shards / f"train-{index:03}.tar").rename(shards / f"moved-{index}.tar")
        assert source(pairs=f"{shards}/moved-{{0..2}}.tar").content_key() == before

    def test_another_pair_or_number_of_pairs_changes_it(self, source, shards):
        before = source().content_key()
        assert source(max_pairs=3).content_key() != before
        write_shard(shards / "train-001.tar", pairs(2, 7))
        assert source().content_key() != before

    def test_planning_loads_no_torch(self, source):
        script = (
            "import sys; from ubt.data.webdataset import WebDataset\n"
            "WebDataset.model_validate_json(sys.argv[1]).content_key(); print('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", script, source().model_dump_json()]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"


class TestAddresses:
    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("pipe:touch {marker}", "pipe: runs shell commands"),
            ("PIPE:touch {marker}", "pipe: runs shell commands"),
            ("train.tar::pipe:touch {marker}", "pipe: runs shell commands"),
            ("{{x,pipe:touch {marker}}}", "pipe: runs shell commands"),
            ("gs://bucket/train.tar", "gs: is not supported"),
            ("file:///train.tar", "file: is not supported"),
        ],
    )
    def test_what_would_run_a_command_is_refused(self, source, tmp_path, pattern, message):
        marker = tmp_path / "marker"
        refused = source(pairs=pattern.format(marker=marker))
        assert any(message in problem for problem in problems_of(refused.content_key))
        assert any(message in problem for problem in problems_of(refused.load, 24, tmp_path / "cache"))
        assert not marker.exists()

    def test_shards_on_the_web_are_fetched_once(self, source, shards, tmp_path):
        handler = partial(SimpleHTTPRequestHandler, directory=str(shards))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            remote = source(pairs=f"{address}/train-{{000..002}}.tar")
            key = remote.content_key()
            missing = source(pairs=f"{address}/train-{{000..003}}.tar")
            (problem,) = problems_of(missing.content_key)
            assert "train-003.tar: cannot be fetched" in problem
            server.shutdown()
        assert key == source().content_key()
        assert len(remote.load(24, tmp_path / "cache").train) == 6

    def test_a_connection_that_breaks_leaves_nothing(self, source, own_cache):
        class Breaking(SimpleHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half")

        with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            remote = source(pairs=f"http://127.0.0.1:{server.server_port}/train.tar")
            assert "cannot be fetched: 4 of 1000 bytes" in problems_of(remote.content_key)[0]
            server.shutdown()
        assert not list((own_cache / "shards").iterdir())


class TestMistakes:
    def test_missing_shards_and_spoilt_lists_are_reported_together(self, source, shards, photos):
        (photos.folder / "classes.txt").write_text("cat\ncat\ndog\n")
        problems = problems_of(source(pairs=f"{shards}/train-{{002..004}}.tar").content_key)
        assert sum("no such shard" in problem for problem in problems) == 2
        assert any("classes.txt: line 2" in problem for problem in problems)

    def test_braces_that_do_not_close_are_explained(self, source):
        assert any("no pattern" in problem for problem in problems_of(source(pairs="a-{0..}3}.tar").content_key))

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"a.png": photo(0)}, "sample a: has no caption"),
            ({"b.txt": b"no image"}, "sample b: has no image"),
            ({"c.png": photo(0), "c.txt": b" \n"}, "sample c: has no caption"),
            ({"d.png": photo(0), "d.txt": "ä".encode("latin-1")}, "sample d: the caption is not UTF-8"),
            ({"e.png": photo(0)[:200], "e.txt": b"half"}, "sample e: the image cannot be decoded"),
        ],
    )
    def test_a_sample_that_lacks_something_is_named(self, source, shards, tmp_path, members, message):
        path = write_shard(shards / "train-001.tar", {**pairs(2), **members})
        (problem,) = problems_of(source().load, 24, tmp_path / "cache")
        assert problem.startswith(f"{path}: ")
        assert message in problem
        assert not list((tmp_path / "cache").glob(".*")), "nothing half-written stays"

    def test_a_truncated_shard_is_named(self, source, shards, tmp_path):
        path = shards / "train-001.tar"
        path.write_bytes(path.read_bytes()[:2000])
        (problem,) = problems_of(source().load, 24, tmp_path / "cache")
        assert problem.startswith(f"{path}: cannot be read: ")

    def test_a_shard_that_is_no_tar_file_is_named(self, source, shards, tmp_path):
        (shards / "train-001.tar").write_text("hello")
        (problem,) = problems_of(source().load, 24, tmp_path / "cache")
        assert "train-001.tar: cannot be read" in problem

    def test_shards_without_samples_are_refused(self, source, shards, tmp_path):
        path = write_shard(shards / "empty.tar", {})
        assert "hold no samples" in problems_of(source(pairs=str(path)).load, 24, tmp_path / "cache")[0]
