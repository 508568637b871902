"""`vqtok report`: a report that is there already is found without torch.

job ─▶ making ─▶ page        figures: what a report holds
"""
