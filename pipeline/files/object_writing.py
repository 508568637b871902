"""Several objects, written at the same time."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import obstore

from pipeline.files.base import Stat
from pipeline.files.object_reading import Asking

_PUTS = 16

ONE_PUT_BYTES = 5 << 20
"""obstore sends what is larger in parts."""


def put_all(files: Asking, folder: str, contents: Mapping[str, bytes]) -> dict[str, Stat]:
    """Write the files of a folder, and what the answers say of them, by path. No request is under way afterwards.

    An answer to a PUT is given when the object is stored, whole and for good; its time of writing is in none.
    """

    def put(path: str) -> Stat:
        data = contents[path]
        place = f"{folder}/{path}"
        answer = files.request(
            place, lambda client: obstore.put(client, place, data), in_several=len(data) > ONE_PUT_BYTES
        )
        return Stat(len(data), "", answer["e_tag"])

    with ThreadPoolExecutor(_PUTS, "put") as putters:
        return dict(zip(contents, putters.map(put, contents), strict=True))
