"""The jobs behind the commands, a room for each: `run(config, ...) -> result`, which prints nothing but progress and
raises VqtokError for what a user can act on.

tokenizing, training, status, verifying, reporting, showing, sampling, importing, clean     one command each, by itself
work                                                            source shards into tokens, in one process or many
plan, rejects, bounds, originals, pictures, tally, terminal     what several of them use
"""
