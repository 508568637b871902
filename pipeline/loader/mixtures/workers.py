"""Whether a worker of a DataLoader goes on with a mixture where the other workers do."""

from pipeline.errors import StoreError


def check_worker(
    state_of: tuple[int, int, int] | None, worker: tuple[int, int], resumes: bool, has_newer_state: bool
) -> None:
    """Raise StoreError in a worker that would not go on where the others do.

    Args:
        state_of: the worker that its state is from: number, number of workers, batches so far; None for a state of all.
        worker: its own number, and number of workers.
        resumes: whether it was given that state just now.
        has_newer_state: whether the mixture that it has a copy of was given a state since.
    """
    if state_of and state_of[:2] != worker:
        raise StoreError(
            f"the mixture's state is of worker {state_of[0]} of {state_of[1]}, this is worker {worker[0]} of "
            f"{worker[1]}; resume with the same number of workers, or from MixtureLoader.state_after"
        )
    if resumes:
        return
    if has_newer_state:
        raise StoreError(
            "the mixture was given a state after these persistent workers were started; make a new DataLoader"
        )
    if state_of:
        raise StoreError(
            "the last iteration was left before its end, and these persistent workers had read ahead, one further "
            "than another; load_state_dict(state_after(steps)), then make a new DataLoader"
        )
