"""One source shard into a committed part, by all stages at once."""

from fixtures_store import COLLECTION, Job
from shard_work import ListQueue, tokenized, work_of

from pipeline.source.find import find_source_shards

pytest_plugins = ["fixtures_store"]


def test_each_source_shard_is_committed_with_what_its_stages_did(job: Job) -> None:
    config = job.config()
    shards = find_source_shards(config.source)
    queue = ListQueue(shards)
    with work_of(config) as work:
        done, commits = tokenized(work, queue)
    assert sorted(queue.finished) == sorted(shard.path for shard in shards)
    assert (queue.failures, done.failures, len(done.loads)) == ({}, {}, len(shards))
    assert done.images == sum(map(len, COLLECTION.values()))
    for shard, commit in zip(shards, commits, strict=True):
        assert (commit.part, commit.seen) == (shard.part, len(COLLECTION[shard.path]))
        assert commit.counts == {"read": commit.seen, "decode": commit.seen, "encode": commit.written}
        assert commit.threads.keys() == {"read", "decode", "encode", "write", "cores"}
        assert commit.seconds["wall"] >= 0
        if commit.written:
            assert min(commit.seconds[stage] for stage in ("read", "decode", "encode")) > 0
