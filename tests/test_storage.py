"""The `storage` of a place: checked, hashable, written nowhere."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.files import files_at
from pipeline.files.objects import ObjectFiles
from pipeline.records import SourceShard
from pipeline.storage import Storage, storage_from_words, storage_of

ALL = {"endpoint": "http://localhost:9000", "profile": "p", "region": "r", "anonymous": True, "patience_s": 5.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoint": "localhost:9000"}, "^storage: endpoint: write an endpoint with its scheme"),
        ({"endpoint": "http://me:secret@localhost"}, "an endpoint has no user, query or fragment"),
        ({"patience_s": 0}, r"storage: patience_s: .*greater than 0 \(got 0\)"),
        ({"patience_s": True}, "storage: patience_s: true or false does not belong here"),
        ({"endpont": "x"}, "storage: endpont: unknown; known are endpoint, profile, region, anonymous, patience_s"),
        ({"anonymous": "perhaps"}, "storage: anonymous: "),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        storage_of(options)


def test_words_of_a_command_line() -> None:
    words = ("endpoint=http://localhost:9000", "anonymous=true", "patience_s=5", "profile=p", "region=r")
    assert storage_from_words(words) == storage_of(ALL) == Storage(**ALL)
    assert storage_from_words(()) == storage_of(None) == Storage()
    with pytest.raises(ConfigError, match=r"--storage 'endpoint': write it as key=value"):
        storage_from_words(("endpoint",))


def test_each_section_has_its_own_and_none_is_written_down(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    sections = {"source": {"shards": "s3://b/x.tar"}, "image": {"size": 32}, "tokenizer": {"path": "s3://t/x"}}
    file.write_text(yaml.safe_dump({**sections, "tokenize": {"store": "s3://b/store"}}))
    config = load_config(
        file,
        [
            "source.storage.profile=one",
            "tokenize.storage.profile=two",
            "tokenize.storage.patience_s=7",
            "tokenizer.storage={endpoint: 'http://three:1'}",
        ],
    )
    assert config.source.storage == Storage(profile="one")
    assert config.tokenize.storage == Storage(profile="two", patience_s=7)
    assert config.tokenizer.storage == Storage(endpoint="http://three:1")
    assert "storage" not in str(config.model_dump()) + str(config.source.identity())
    with pytest.raises(ConfigError, match=r"tokenize\.storage\.endpont: unknown key; did you mean endpoint\?"):
        load_config(file, ["tokenize.storage.endpont=x"])
    with pytest.raises(ConfigError, match=r"source\.storage\.endpoint: write an endpoint with its scheme"):
        load_config(file, ["source.storage.endpoint=x:1"])


def test_a_source_shard_takes_it_along_and_does_not_write_it() -> None:
    shard = SourceShard(path="x.tar", base="s3://b", part="p", bytes=1, storage=Storage(profile="p"))
    assert "storage" not in shard.tree() and "profile" not in repr(shard)
    assert shard.model_copy(update={"path": "y"}).storage == Storage(profile="p")


def test_one_url_reached_in_two_ways_is_two_places() -> None:
    one, other = (files_at("s3://b/x", Storage(profile=name)) for name in ("one", "other"))
    assert one is files_at("s3://b/x", Storage(profile="one"))
    assert one is not other and isinstance(one, ObjectFiles)
