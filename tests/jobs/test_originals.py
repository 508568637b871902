"""The images of a store's rows, found again in the source."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures_store import Job

from pipeline.errors import SourceError
from pipeline.files import LocalFiles
from pipeline.jobs.originals import batches_of_rows
from pipeline.source.find import find_source_shards
from pipeline.store.schema.commits import read_commit

pytest_plugins = ["fixtures_store"]


def test_chosen_batches_are_those_that_were_encoded(finished: Job) -> None:
    config = finished.config()
    (shard,) = [shard for shard in find_source_shards(config.source) if shard.path == "train-0000.tar"]
    store = LocalFiles(finished.store)
    commit = read_commit(store, shard.part)
    with ThreadPoolExecutor(2) as decoders:

        def keys(chosen: list[range], size: int = 8) -> list[list[str]]:
            batches = batches_of_rows(config, store, shard, commit, chosen, size, decoders)
            return [[row.key for row in batch.rows] for batch in batches]

        assert keys([range(8, 16)]) == [[f"{row:06d}" for row in range(8, 16)]]
        assert keys([range(8), range(16, 20)]) == [[f"{row:06d}" for row in rows] for rows in (range(8), range(16, 20))]
        with pytest.raises(SourceError, match="not the images that were tokenized"):
            keys([range(16, 24)])
