"""Shards are read from folders and addresses alike; what cannot be reached is one line."""

import functools
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest

from drape.data import shard_places
from drape.data.loader import stream
from drape.data.shard_index import load_index
from drape.data.shard_places import Folder, Kept, Remote, location, place_of
from drape.data.shard_writer import Packing, pack
from drape.data.shards import Shards
from drape.data.viton_hd import VitonHD
from drape.errors import DataError

IDS = [f"{number:05}_00" for number in range(11)]
FIELDS = ("person", "cloth", "cloth_mask")


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(shard_places, "PATIENCE_S", (0.0, 0.0))


@pytest.fixture
def people(viton) -> VitonHD:
    return VitonHD(viton.write(IDS).root, size=(64, 48), fields=FIELDS)


@pytest.fixture
def packed(people, tmp_path) -> Path:
    """Four people to a shard."""
    pack([people], tmp_path / "out", Packing(shard_bytes=120_000))
    return tmp_path / "out"


@pytest.fixture
def memory(packed) -> Iterator[str]:
    """The same folder at an address of fsspec's."""
    system = fsspec.filesystem("memory")
    for path in packed.iterdir():
        system.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


@pytest.fixture
def fetched(monkeypatch) -> list[tuple[str, int, int]]:
    """What is asked of an address from now on: (file, first byte, bytes)."""
    calls: list[tuple[str, int, int]] = []
    real = Remote._fetcher

    def fetcher(self: Remote) -> Any:
        fetch = real(self)

        def noted(file: str, start: int, end: int) -> bytes:
            calls.append((file, start, end - start))
            return fetch(file, start, end)

        return noted

    monkeypatch.setattr(Remote, "_fetcher", fetcher)
    return calls


def equal(shards: Shards, people: VitonHD, indices: Any = range(11)) -> bool:
    return all(
        (getattr(shards[index], name) == getattr(people[index], name)).all() for index in indices for name in FIELDS
    )


def said(action: Any) -> str:
    with pytest.raises(DataError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("people", Path("people")),
        ("/data/people", Path("/data/people")),
        ("s3://bucket/people/", "s3://bucket/people"),
        (Path("s3://bucket/people"), "s3://bucket/people"),
        (Path("https://host/a?token=1"), "https://host/a?token=1"),
        (Path("simplecache::s3://bucket/people"), "simplecache::s3://bucket/people"),
        ("file:///data/people", Path("/data/people")),
        (Path("file:///data/people"), Path("/data/people")),
        ("C:/data", Path("C:/data")),
        ("a:b", Path("a:b")),
    ],
)
def test_addresses_are_understood_also_where_a_path_has_taken_a_slash(written, meant) -> None:
    assert location(written) == meant


def test_a_folder_whose_name_looks_like_an_address_is_a_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:" / "data").mkdir(parents=True)
    assert location("odd:/data") == Path("odd:/data")


@pytest.mark.parametrize("form", ["memory", "path", "chain", "file"])
def test_an_address_gives_the_samples_of_the_folder(people, packed, memory, form) -> None:
    chained = f"simplecache::{memory}"
    where = {"memory": memory, "path": Path(memory), "chain": Path(chained), "file": f"file://{packed}"}[form]
    shards = Shards(where)
    assert shards.ids == people.ids and equal(shards, people)
    shards.verify()
    assert shards.place.startswith({"file": str(packed), "chain": chained}.get(form, "memory://bucket"))


def test_workers_read_an_address_too(people, memory) -> None:
    shards = Shards(memory)
    _ = shards[0]
    batches = [
        list(islice(stream(reader, seed=1, images_seen=3, batch_size=4, workers=workers), 4))
        for reader, workers in ((people, 0), (shards, 2))
    ]
    assert [batch.person_id for batch in batches[0]] == [batch.person_id for batch in batches[1]]
    assert all((a.need("person") == b.need("person")).all() for a, b in zip(*batches, strict=True))


def test_random_access_fetches_one_sample_and_no_more(people, packed, memory, fetched) -> None:
    shards = Shards(memory)
    fetched.clear()
    assert equal(shards, people, [7])
    (file, start, length), *repeated = fetched
    (part,) = load_index((packed / "index.json").read_bytes(), "packed")
    row = part.shards[1].samples[3]
    assert repeated == [] and file == "train-paired-000001.tar"
    assert start == row.offsets[0] and length == row.offsets[2] + row.sizes[2] - start


def test_samples_one_after_the_other_are_fetched_together(people, memory, fetched) -> None:
    shards = Shards(memory)
    fetched.clear()
    assert equal(shards, people)
    assert len(fetched) == 6  # of each shard one sample and then the rest


def test_a_missing_index_or_shard_is_named(memory) -> None:
    assert "memory://nothing/index.json is missing. Copy the whole folder there" in said(
        lambda: Shards("memory://nothing")
    )
    system = fsspec.filesystem("memory")
    system.rm_file("/bucket/train-paired-000001.tar")
    shards = Shards(memory)
    assert "memory://bucket/train-paired-000001.tar is missing" in said(lambda: shards[5])
    system.pipe_file("/bucket/train-paired-000001.tar", b"short")
    assert re.search(r"bucket/train-paired-000001.tar ends at byte [\d,]+, expected", said(lambda: shards[5]))
    system.pipe_file("/bucket/train-paired-000000.tar", bytes(100_000))
    assert "train-paired-000000.tar: person.png of 00001_00 in 00001_00 has the CRC-32" in said(lambda: shards[1])
    assert "train-paired-000000.tar has the SHA-256" in said(shards.verify)


def test_what_fails_for_a_moment_is_tried_again_and_what_fails_for_good_is_one_line(
    memory, people, monkeypatch
) -> None:
    shards = Shards(memory)
    failures = [ConnectionResetError("reset\nby peer"), TimeoutError()]
    real = Remote._fetcher

    def fetcher(self: Remote) -> Any:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(Remote, "_fetcher", fetcher)
    assert equal(shards, people, [4]) and failures == []
    failures += [ConnectionResetError("reset\nby peer")] * 9
    message = said(lambda: shards[9])
    assert (
        "train-paired-000002.tar cannot be read (reset by peer). Check the address, your rights and the network."
        in message
    )
    assert len(failures) == 6


def test_protocols_that_are_unknown_or_need_a_package_say_so(monkeypatch) -> None:
    assert "nosuch://x cannot be opened: Protocol not known: nosuch" in said(lambda: Shards("nosuch://x"))
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    message = said(lambda: Shards("s3://bucket/x"))
    assert message.startswith("s3://bucket/x cannot be opened: Install s3fs to access S3")


def test_no_message_shows_a_password() -> None:
    assert place_of("https://user:secret@host/x?token=secret").name == "https://host/x"
    assert place_of("s3://bucket/x").name == "s3://bucket/x"


class Ranges(SimpleHTTPRequestHandler):
    """Python's own server, which knows no ranges, taught some."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        content = path.read_bytes()
        if int(first) >= len(content):
            return self.send_error(416)
        part = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class NoRanges(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Broken(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_error(503, "Out of order")


@pytest.fixture
def serve(packed) -> Iterator[Any]:
    servers = []

    def start(handler: type) -> str:
        if issubclass(handler, SimpleHTTPRequestHandler):
            handler = functools.partial(handler, directory=str(packed.parent))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("handler", [Ranges, NoRanges])
def test_a_web_server_gives_the_samples_of_the_folder_with_ranges_or_without(people, serve, handler) -> None:
    shards = Shards(f"{serve(handler)}/out/")
    assert equal(shards, people, [6, 2, 3, 4, 10])
    shards.verify()


def test_what_a_web_server_refuses_is_one_line(packed, serve) -> None:
    address = serve(Ranges)
    assert f"{address}/nothing/index.json is missing" in said(lambda: Shards(f"{address}/nothing"))
    shards = Shards(f"{address}/out")
    (packed / "train-paired-000002.tar").write_bytes(b"")
    assert "train-paired-000002.tar ends at byte" in said(lambda: shards[9])
    assert "index.json cannot be read (HTTP Error 503: Out of order)" in said(lambda: Shards(f"{serve(Broken)}/out"))
    assert "Connection refused" in said(lambda: Shards("http://127.0.0.1:9/out"))


def test_whole_shards_are_kept_here_and_fetched_once(people, memory, fetched, tmp_path, monkeypatch) -> None:
    keep = tmp_path / "kept"
    monkeypatch.setattr(shard_places, "AHEAD", 50_000)
    for reader in (Shards(memory, keep=keep), Shards(memory, keep=keep)):
        assert equal(reader, people)
    shards = [call for call in fetched if call[0] != "index.json"]
    assert len(shards) == len(set(shards)) == 8  # 112,640, 112,640 and 81,920 bytes in pieces
    assert sorted(path.stat().st_size for path in keep.glob("*.tar")) == [81920, 112640, 112640]
    assert list(keep.glob("*.part")) == []


def test_kept_shards_that_were_used_last_stay_when_there_is_no_room(people, memory, tmp_path) -> None:
    keep = tmp_path / "kept"
    shards = Shards(memory, keep=keep, most_bytes=240_000)
    assert equal(shards, people, [0, 4])
    first, second = (keep / f"{shard.sha256}.tar" for shard in shards.part.shards[:2])
    assert first.exists() and second.exists()
    assert equal(shards, people, [1, 9])
    assert first.exists() and not second.exists()
    assert equal(shards, people)


def test_a_shard_that_arrives_damaged_is_not_kept(memory, tmp_path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/train-paired-000001.tar", bytes(112_640))
    shards = Shards(memory, keep=tmp_path / "kept")
    assert "memory://bucket/train-paired-000001.tar has the digest" in said(lambda: shards[5])
    assert not list((tmp_path / "kept").glob("*.tar"))
    fsspec.filesystem("memory").pipe_file("/bucket/train-paired-000001.tar", b"")
    assert "has the digest" in said(lambda: shards[5])


def test_a_folder_that_cannot_keep_shards_says_so(memory, tmp_path) -> None:
    (tmp_path / "file").touch()
    shards = Shards(memory, keep=tmp_path / "file" / "kept")
    assert "cannot be written (" in (message := said(lambda: shards[0])) and "DRAPE_SHARD_CACHE" in message


def test_few_files_stay_open_however_many_shards_there_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shard_places, "OPEN_FILES", 3)
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(bytes([number]) * 5)
    place = Folder(tmp_path)
    assert [place.read(f"{number}.tar", 2, 9) for number in (*range(9), *range(9))] == [
        bytes([number]) * 3 for number in (*range(9), *range(9))
    ]
    assert len(place._open) == 3
    assert isinstance(Kept(place, tmp_path / "kept", {}), shard_places.Place)
