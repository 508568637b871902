"""`vqtok ray`: the processes of a job as tasks of a Ray cluster.

job ─▶ cluster      the driver: what there is room for, what it starts, what it shows of the store meanwhile
work.errand         what each task does on its node: one `vqtok tokenize`, to its end

Ray places tasks, starts them again, and asks for machines. Nothing else of it is used: which source shards are done is
told by the commits in the store, so a driver, a head or an object store of Ray that is lost takes nothing along. Ray
Data and Ray Train would hold rows, or the place in a data set, in just those. A task and not an actor: an actor keeps
its slot when there is nothing left to do.
"""
