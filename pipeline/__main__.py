"""`python -m pipeline` is the same command as `vqtok`, and so is this file, run by its path."""

if not __package__:
    # By its path nothing else that is called `pipeline`, such as a file in the working folder, takes its place.
    import sys
    from pathlib import Path

    _home = str(Path(__file__).parents[1])
    sys.path.insert(0, _home)
    import pipeline  # noqa: F401

    sys.path.remove(_home)
    if _home not in sys.path:
        sys.path.append(_home)  # for processes that are spawned from this one

from pipeline.cli import main

if __name__ == "__main__":
    main(prog_name="vqtok")
