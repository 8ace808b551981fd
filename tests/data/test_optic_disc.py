"""PaddleSeg's optic disc data: from a folder, or downloaded, here from a server of the test's own."""

import functools
import http.server
import io
import threading
import zipfile
from pathlib import Path

import pytest

from segslim.data import FileList, OpticDisc
from segslim.errors import UserError
from tests.data import layouts


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """(folder that is served, its address)"""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(served, tmp_path):
    folder, address = served
    layouts.optic_disc(tmp_path / "source" / "optic_disc_seg")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for path in sorted((tmp_path / "source").rglob("*")):
            packed.write(path, path.relative_to(tmp_path / "source"))
    (folder / "optic_disc_seg.zip").write_bytes(content.getvalue())
    return f"{address}/optic_disc_seg.zip"


def test_a_given_root_is_read_by_its_lists(tmp_path):
    layouts.optic_disc(tmp_path)
    source = OpticDisc(str(tmp_path))
    assert [pair.image.stem for pair in source.pairs(None, "train")] == ["train0", "train1"]
    assert source.identity() == FileList(tmp_path, "train_list.txt", "val_list.txt").identity()


def test_a_given_root_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist.*dataset\.root"):
        OpticDisc(tmp_path / "nowhere").identity()


@pytest.mark.parametrize("root", [None, ""])
def test_without_a_root_it_is_downloaded_into_the_given_folder(archive, tmp_path, root):
    steps = []
    source = OpticDisc(root, url=archive)
    source.prepare(tmp_path / "made", lambda done, total: steps.append((done, total)))
    pairs = source.pairs(tmp_path / "made", "train")
    assert len(pairs) == 2 and all(pair.image.is_relative_to(tmp_path / "made") for pair in pairs)
    assert steps[-1][0] == steps[-1][1] > 0


def test_the_identity_is_known_before_the_download(archive):
    assert OpticDisc(url=archive).identity() == OpticDisc(url=archive).identity() != OpticDisc().identity()


@pytest.mark.parametrize("name", ["gone.zip", "login.zip"])
def test_a_failed_download_names_the_address_and_the_key_for_a_copy(served, tmp_path, name):
    (served[0] / "login.zip").write_text("<html>please log in</html>")
    with pytest.raises(UserError, match=rf"cannot download {served[1]}/{name} .*dataset\.root=") as error:
        OpticDisc(url=f"{served[1]}/{name}").prepare(tmp_path / "made")
    assert "\n" not in str(error.value)


def test_an_archive_of_something_else_is_named(served, tmp_path):
    with zipfile.ZipFile(served[0] / "other.zip", "w") as packed:
        packed.writestr("readme.txt", "nothing here")
    source = OpticDisc(url=f"{served[1]}/other.zip")
    source.prepare(tmp_path / "made")
    with pytest.raises(UserError, match=r"other\.zip holds no train_list\.txt"):
        source.pairs(tmp_path / "made", "train")


@pytest.mark.parametrize("size", [(1 << 30) + 1, (1 << 32) - 2])
def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(served, archive, tmp_path, size):
    packed = served[0] / "optic_disc_seg.zip"
    content = bytearray(packed.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last of the archive's table of contents
    content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    packed.write_bytes(content)
    with pytest.raises(UserError, match="it unpacks to more than 1024 MB"):
        OpticDisc(url=archive).prepare(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_archive_that_leaves_its_folder_stays_in_it(served, archive, tmp_path):
    with zipfile.ZipFile(served[0] / "optic_disc_seg.zip", "a") as packed:
        packed.writestr("../../outside.txt", "out")
        packed.writestr("/absolute.txt", "out")
    OpticDisc(url=archive).prepare(tmp_path / "deep" / "folder")
    assert not list(tmp_path.glob("outside.txt")) and not list(tmp_path.glob("deep/outside.txt"))
    assert not Path("/absolute.txt").exists() and (tmp_path / "deep" / "folder" / "outside.txt").is_file()
