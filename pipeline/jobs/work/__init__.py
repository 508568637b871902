"""What turns source shards into encoded parts, in one process or many, whatever command it is for.

handout ─▶ decoding ─▶ encoding          which source shard is next, its pixels, its tokens
timing, watch, progress                  how long each stage was busy, whether one hangs, how far all are
execution, precision                     how tokens are made, and whether the processor is made for it
launch, siblings, starting, result       several processes of one command, and what they tell each other
"""
