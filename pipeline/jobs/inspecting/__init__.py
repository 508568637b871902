"""What a collection holds, and a configuration that fits it. Without torch.

finding ─▶ looking ─▶ job ─▶ text, proposal        which source shards; into some of them; sums; for people; as YAML
"""
