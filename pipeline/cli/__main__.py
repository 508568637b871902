"""`python -m pipeline.cli` is the same command as `vqtok`."""

from pipeline.cli.commands import main

if __name__ == "__main__":
    main(prog_name="vqtok")
