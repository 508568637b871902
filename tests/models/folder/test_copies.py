"""A tokenizer at a URL: copied once, by its digest, and never half."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures_s3 import S3, Faults, Proxy
from fixtures_store import save_tiny_tokenizer

from pipeline.errors import TokenizerError
from pipeline.files import files_at
from pipeline.models.folder import copies
from pipeline.models.folder.copies import local_folder
from pipeline.models.tokenizers.registry import layout_name, load_tokenizer, tokenizer_identity, trained_image_size
from pipeline.storage import Storage

pytest_plugins = ["fixtures_store", "fixtures_s3"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(copies, "_sound", set())
    yield tmp_path / "cache/vqtok/tokenizers"


def upload(folder: Path, url: str) -> None:
    for path in folder.iterdir():
        if path.is_file():
            files_at(url).put(path.name, path.read_bytes())


def test_all_that_a_folder_tells_is_told_of_a_url(cache: Path, s3: S3, bucket_url: str, tokenizer_folder: Path) -> None:
    upload(tokenizer_folder, bucket_url)
    assert tokenizer_identity(bucket_url) == tokenizer_identity(tokenizer_folder)
    assert layout_name(f"{bucket_url}/", None) == layout_name(tokenizer_folder, None)
    assert trained_image_size(bucket_url) == trained_image_size(tokenizer_folder)
    assert load_tokenizer(bucket_url).identity() == load_tokenizer(tokenizer_folder).identity()
    [copy] = [path for path in cache.iterdir() if path.is_dir()]
    assert {path.name for path in copy.iterdir()} == {"config.json", "model.safetensors"}


def test_a_copy_is_fetched_once_and_followed_when_the_url_changes(
    cache: Path, s3: S3, proxy: Proxy, bucket_url: str, tmp_path: Path
) -> None:
    upload(save_tiny_tokenizer(tmp_path / "one", seed=1), bucket_url)
    reached = Storage(endpoint=f"http://127.0.0.1:{proxy.s3.port}")
    with ThreadPoolExecutor(6) as threads:
        [first] = set(threads.map(lambda _: local_folder(bucket_url, reached), range(6)))
    assert proxy.counts["GetObject"] == 6 + 1  # config.json each, and the weights once
    copies._sound.clear()  # as in another process
    assert local_folder(bucket_url, reached) == first
    assert proxy.counts["GetObject"] == 8
    upload(save_tiny_tokenizer(tmp_path / "two", seed=2), bucket_url)
    second = local_folder(bucket_url, reached)
    assert second != first and tokenizer_identity(second) == tokenizer_identity(tmp_path / "two")


@pytest.mark.parametrize("damage", ["cut", "missing", "other"])
def test_a_damaged_copy_is_fetched_anew(
    cache: Path, s3: S3, bucket_url: str, tokenizer_folder: Path, damage: str
) -> None:
    upload(tokenizer_folder, bucket_url)
    weights = local_folder(bucket_url) / "model.safetensors"
    copies._sound.clear()
    data = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(data[:-5] if damage == "cut" else bytes([data[0]]) + data[1:-1] + bytes([data[-1] ^ 1]))
    assert tokenizer_identity(bucket_url) == tokenizer_identity(tokenizer_folder)
    assert weights.read_bytes() == data


def test_what_is_not_whole_at_the_url_leaves_no_copy(
    cache: Path, s3: S3, bucket_url: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer folder there; `vqtok train` and `vqtok import` write such"):
        local_folder(bucket_url)
    upload(tokenizer_folder, bucket_url)
    files_at(bucket_url).put(
        "model.safetensors", (save_tiny_tokenizer(tmp_path / "o", 9) / "model.safetensors").read_bytes()
    )
    with pytest.raises(TokenizerError, match=r"model\.safetensors: not the weights that config\.json was written for"):
        local_folder(bucket_url)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    files_at(bucket_url).delete("model.safetensors")
    with pytest.raises(TokenizerError, match="no tokenizer folder there"):
        local_folder(bucket_url)


def test_an_outage_is_said_as_it_is(cache: Path, s3: S3, proxy: Proxy, bucket_url: str, tokenizer_folder: Path) -> None:
    upload(tokenizer_folder, bucket_url)
    proxy.faults = Faults(refuse=1.0)
    reached = Storage(endpoint=f"http://127.0.0.1:{proxy.s3.port}", patience_s=0.2)
    with pytest.raises(TokenizerError, match=r"cannot be copied: .*/config\.json: GET: 50[03] "):
        local_folder(bucket_url, reached)
    shutil.rmtree(cache, ignore_errors=True)


def test_a_cache_that_cannot_be_written_is_told_with_what_helps(
    s3: S3, bucket_url: str, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tokenizer_folder, bucket_url)
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", "/proc/nowhere"):  # the second says ENOENT, as a missing tokenizer does
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        with pytest.raises(TokenizerError, match=f"cannot be copied to {home}/.*; make room .* or set XDG_CACHE_HOME"):
            local_folder(bucket_url)


def test_a_copy_serves_where_nobody_can_write(
    cache: Path, s3: S3, bucket_url: str, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on nodes on which the home can only be read."""
    upload(tokenizer_folder, bucket_url)
    copy = local_folder(bucket_url)
    copies._sound.clear()  # as in another process
    monkeypatch.setattr(copies, "lock", lambda path: pytest.fail("nothing can be made here"))
    assert local_folder(bucket_url) == copy


def test_a_user_without_a_home_is_told_what_to_set(
    s3: S3, bucket_url: str, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tokenizer_folder, bucket_url)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-at-all").expanduser())
    with pytest.raises(TokenizerError, match=r"home directory.*; set XDG_CACHE_HOME"):
        local_folder(bucket_url)
