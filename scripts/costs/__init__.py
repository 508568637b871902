"""What `bench_costs.py` measures on a store of very many rows.

linked.py: the store, made of hard links ──▶ reading.py: what reading it takes, in processes of their own
"""
