import gzip
import io
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photographs import photo, write_shard
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from ubt.common.errors import UserError
from ubt.common.hashing import fingerprint
from ubt.data import images as image_cache
from ubt.data.decode import decode_image
from ubt.data.digests import FileFacts
from ubt.data.shards import IMAGE_SUFFIXES, read_samples
from ubt.data.webdataset import WebDataset


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


def captions_of(path):
    problems = []
    samples = list(read_samples([path], problems))
    assert problems == []
    assert not any(sample.troubles for sample in samples)
    return [(sample.caption, sample.image) for sample in samples]


class TestMembers:
    @given(
        st.permutations([f"{key}.{suffix}" for key in ("a", "b", "d/c", "./e") for suffix in ("png", "txt", "json")])
    )
    def test_a_shard_need_not_be_sorted(self, tmp_path_factory, names):
        folder = tmp_path_factory.getbasetemp()
        path = write_shard(folder / "unsorted.tar", {name: name.encode() for name in names})
        keys = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        assert captions_of(path) == [(f"{key}.txt", f"{key}.png".encode()) for key in keys]

    @given(
        st.lists(st.text(st.sampled_from("ab0-_ "), min_size=1, max_size=4), min_size=1, max_size=6, unique=True),
        st.sampled_from(["", "./", "train/", "a.b/c/"]),
        st.sets(st.sampled_from(["json", "seg.png", "npy"])),
        st.sampled_from(IMAGE_SUFFIXES),
    )
    def test_a_sorted_shard_is_read_as_webdataset_reads_it(self, tmp_path_factory, keys, folder, others, image):
        members = {
            f"{folder}{key}.{suffix}": f"{key} {suffix}".encode() for key in keys for suffix in (image, "txt", *others)
        }
        path = write_shard(tmp_path_factory.getbasetemp() / "sorted.tar", members)
        with path.open("rb") as stream:
            samples = list(group_by_keys(tar_file_expander([{"url": "", "stream": stream}])))
        expected = [(sample["txt"].decode().strip(), sample[image]) for sample in samples]
        assert captions_of(path) == expected

    @pytest.mark.parametrize(
        "hidden", ["._0001.png", "./._0001.txt", "d/._0001.png", "__MACOSX/d/0001.png", ".DS_Store", ".c/x.png"]
    )
    def test_what_is_hidden_is_no_sample(self, tmp_path, hidden):
        members = {hidden: b"resource fork", **pairs(0), f"d/{hidden}": b"again", **pairs(1)}
        path = write_shard(tmp_path / "mac.tar", members)
        assert [caption for caption, _ in captions_of(path)] == ["number 0", "number 1"]

    @pytest.mark.parametrize(
        "names", [["photo.v1", "photo.v2"], ["2024.05.01", "2024.05.02"], ["a.b", "a.c", "x.y.z"], ["v1.0 of it"]]
    )
    @pytest.mark.parametrize("sorted_", [True, False])
    def test_dots_in_names_are_kept_apart_where_the_first_does_not_tell_them(self, tmp_path, names, sorted_):
        members = [f"{name}.{suffix}" for name in names for suffix in ("jpg", "txt")]
        members = members if sorted_ else sorted(members, key=lambda name: name[-1])
        path = write_shard(tmp_path / "dots.tar", {name: name.encode() for name in members})
        assert captions_of(path) == [(f"{name}.txt", f"{name}.jpg".encode()) for name in names]

    def test_a_whole_sample_is_not_taken_apart_at_its_dots(self, tmp_path):
        members = {"a.jpg": b"image", "a.txt": b"caption", "a.small.jpg": b"thumbnail", "a.small.txt": b"else"}
        assert captions_of(write_shard(tmp_path / "dots.tar", members)) == [("caption", b"image")]

    def test_a_key_that_comes_twice_whole_is_two_samples(self, tmp_path):
        path = tmp_path / "twice.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("a.jpg", "a.txt", "b.jpg", "b.txt", "a.jpg", "a.txt"):
                entry = tarfile.TarInfo(name)
                entry.size = len(name)
                tar.addfile(entry, io.BytesIO(name.encode()))
        assert [caption for caption, _ in captions_of(path)] == ["a.txt", "b.txt", "a.txt"]

    def test_a_compressed_shard_is_read_too(self, tmp_path):
        plain = write_shard(tmp_path / "a.tar", pairs(0, 1))
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
        assert captions_of(tmp_path / "a.tar.gz") == captions_of(plain)

    def test_an_unsorted_shard_that_lacks_a_caption_is_one_problem(self, source, shards, tmp_path):
        members = dict(sorted(pairs(*range(64)).items(), key=lambda member: member[0][-3:]))
        del members["0007.txt"]
        path = write_shard(shards / "unsorted.tar", members)
        (problem,) = problems_of(source(pairs=str(path)).load, 24, tmp_path / "cache")
        assert "sample 0007: has no caption" in problem


class TestDepth:
    def test_grey_of_16_bits_is_scaled_under_a_key_and_a_name_of_its_own(self, source, shards, tmp_path):
        stream = io.BytesIO()
        Image.fromarray(np.full((8, 8), 0x80FF, dtype=np.uint16)).save(stream, "PNG")
        path = write_shard(shards / "deep.tar", {**pairs(0), "d.png": stream.getvalue(), "d.txt": b"grey"})
        data = source(pairs=str(path)).load(8, tmp_path / "cache")
        assert np.unique(data.train.images[1]) == 0x80
        facts = FileFacts([path], "shard")
        assert source(pairs=str(path))._train([path]).key != fingerprint([facts.digest(), None])


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
            ("ftp://host/train.tar", "ftp: is not supported"),
            ("reference://host/train.tar", "reference: is not supported"),
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

    def test_a_user_and_a_password_open_what_is_protected_and_go_no_further(self, source, shards, own_cache):
        asked = []

        class Protected(SimpleHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers["Authorization"]))
                if self.path.startswith("/moved"):
                    self.send_response(302)
                    self.send_header("Location", f"http://localhost:{self.server.server_port}/train-000.tar")
                    self.end_headers()
                else:
                    super().do_GET()

        handler = partial(Protected, directory=str(shards))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            source(pairs=f"http://ann:s%2Fc%40t@127.0.0.1:{server.server_port}/moved.tar").content_key()
            server.shutdown()
        assert asked == [("/moved.tar", "Basic YW5uOnMvY0B0"), ("/train-000.tar", None)]

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


def test_drafts_of_shards_are_other_content(source, shards):
    write_shard(shards / "train-000.tar", {"0.jpg": photo(0, (400, 300), "JPEG"), "0.txt": b"one"})
    exact, draft = source(), source(jpeg="draft")
    assert exact.content_key() != draft.content_key()
    one, other = (each.load(24, shards / "cache").train.images for each in (exact, draft))
    np.testing.assert_array_equal(one[1:], other[1:])  # those are PNG files
    assert not np.array_equal(one[0], other[0])
