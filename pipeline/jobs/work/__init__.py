"""What turns source shards into committed parts, in one process or many, whatever command it is for.

shard                                    the way of one source shard: read, decode, encode, write
machine, stages, watch                   what it is done with; how long each stage was busy, whether one hangs
lanes                                    several source shards at once, one behind the other
shard_queue, claim_queue, failures       what hands them out, what is claimed by whom, why one stays pending
execution, precision                     how tokens are made, and whether the processor is made for it
processes, launch, siblings, starting    several processes of one command, how many, and what they tell each other
errand, shared                           the same on many nodes, for an engine that places it; what all of them must see
progress, result                         how far all are, and what came of it
"""
