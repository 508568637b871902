"""`vqtok estimate`: what a job will take, by doing a little of it.

job ─▶ measuring     some images of some source shards, through all stages, into a store that is thrown away
    ─▶ estimate      what that says of the whole: pure arithmetic
text                 the same for people, with the arithmetic
"""
