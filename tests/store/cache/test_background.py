"""Calls in the background: all of them, so many at a time, and none after the end."""

import threading
import time

from fixtures_store import wait_for
from support import run_python

from pipeline.store.cache.background import Background


def wait_until_idle(background: Background) -> None:
    wait_for(lambda: not background._running)


def test_all_calls_are_made_a_few_at_a_time() -> None:
    background = Background(3)
    lock, now, most, done = threading.Lock(), 0, 0, []

    def call(number: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
            done.append(number)

    for start in (0, 10, 20):
        background.add([lambda number=number: call(number) for number in range(start, start + 10)])
    wait_until_idle(background)
    assert (sorted(done), most) == (list(range(30)), 3)
    background.add([lambda: call(30)])
    wait_until_idle(background)
    assert len(done) == 31


def test_a_call_that_raises_harms_no_other() -> None:
    said = run_python(
        "import time\n"
        "from pipeline.store.cache.background import Background\n"
        "background, done = Background(1), []\n"
        "def bad(): raise ValueError('shown')\n"
        "background.add([bad])\n"
        "while background._running: time.sleep(0.01)\n"
        "background.add([lambda: done.append(1)])\n"
        "while not done: time.sleep(0.01)\n"
        "print(done)"
    )
    assert said == "[1]\n"


def test_closing_waits_for_what_runs_and_drops_the_rest() -> None:
    background = Background(2)
    begun, done = [], []

    def call() -> None:
        begun.append(1)
        while not background.is_stopping:
            time.sleep(0.001)
        done.append(1)

    background.add([call] * 10)
    wait_for(lambda: len(begun) == 2)
    background.close()
    assert (len(begun), len(done), background.is_stopping) == (2, 2, True)
    background.add([call])
    background.close()
    assert len(begun) == 2


def test_a_process_ends_without_the_calls_that_wait() -> None:
    said = run_python(
        "import threading, time\n"
        "from pipeline.store.cache.background import Background\n"
        "background, begun = Background(2), []\n"
        "def call():\n"
        "    begun.append(1)\n"
        "    print('begun\\n', end='', flush=True)\n"
        "    threading.main_thread().join()\n"
        "background.add([call] * 1000)\n"
        "while len(begun) < 2: time.sleep(0.01)\n"
    )
    assert said == "begun\nbegun\n"
