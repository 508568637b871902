"""What `bench_costs.py` measures of a store of very many rows, and of handing out source shards to many processes.

linked.py: the store, made of hard links ──▶ reading.py: what reading it takes, in processes of their own
stub.py: processes that commit tiny parts ──▶ calls.py, requests.py: what is counted of them ──▶ handing_out.py: tables
crowd.py: of 64 that take their time; bill.py: of a thousand, on paper
"""
