"""Documentation that runs: the fenced blocks of README.md, CONTRIBUTING.md and docs/*.md.

page ──▶ blocks ──▶ checking: parsed, and every option, key, make target and file that it names exists
                └─▶ running: from top to bottom, in one working folder and one Python namespace for each page

A block runs as it stands unless a comment on the line before it says why not:

    <!-- not run: needs Slurm -->
    <!-- slow: starts eight processes -->

One that is slow runs in `make test-slow`. All are checked, and so are commands within the text, such as `make lint`.
"""
