"""Stored data sets at a repository: pushed by the real client, streamed by `datasets` and by ct_hf, with faults on the way."""

import json
from pathlib import Path

import pytest

from ct_hf.data import convert_dataset
from ct_hf.hub import push_dataset

from .clean import run
from .server import Fault


PLACE = "org/boats"

STREAM = """
import json, sys
from datasets import load_dataset
from ct_hf.data import StoredClips, stream_pairs
from ct_hf.models import OSTrackConfig

place = sys.argv[1]
rows = list(load_dataset(place, split="train", streaming=True))
clips = StoredClips(place + "@v1")
numbers = [clip for shard in range(clips.num_shards) for group in clips.groups(shard) for clip in group]
first = clips.read(numbers[0])
pair = next(iter(stream_pairs(StoredClips(place), OSTrackConfig(template_size=32, search_size=64, patch_size=16), seed=0)))
print(json.dumps({
    "rows": [[row["name"], row["clip"], len(row["frames"])] for row in rows],
    "bytes": [row["frames"][0]["bytes"].hex()[:40] for row in rows],
    "clips": [[clips.read(number).name, len(clips.read(number).frame_index)] for number in numbers],
    "boxes": first.boxes.tolist(), "size": first.frame(0, 1).size, "pair": list(pair["search_pixel_values"].shape),
}))
"""


@pytest.fixture
def conversion(boats, tmp_path):
    return convert_dataset("folder", boats, tmp_path / "out", license="cc-by-4.0", stride=100)


def test_a_pushed_data_set_is_streamed_as_it_was_stored(hub, api, conversion, tmp_path):
    """Also when the server is out of breath, and when it hangs up in the middle of an answer."""
    push_dataset(conversion, PLACE, api)
    api.create_tag(PLACE, tag="v1", repo_type="dataset")
    repository = hub.repositories["datasets", PLACE]
    assert repository.private and "README.md" in repository.head.files
    stored = {path.name: path.read_bytes() for path in (conversion.out / "data").glob("*.parquet")}
    assert stored == {name[5:]: file.data for name, file in repository.head.files.items() if name.endswith(".parquet")}
    hub.faults += [
        Fault("status", "GET /storage", status=503),
        Fault("drop", "GET /storage", after=2),
    ]
    environment = {**hub.environment(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = run(STREAM, PLACE, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert all(fault.times == 0 for fault in hub.faults), hub.faults
    assert len(seen["rows"]) == conversion.clips and sum(row[2] for row in seen["rows"]) == conversion.frames
    assert sorted(row[0] for row in seen["rows"]) == sorted(name for name, _ in seen["clips"])
    assert all(start.startswith("ffd8") for start in seen["bytes"]), "JPEG files as they were"
    assert seen["size"] == [96, 72] and seen["pair"] == [3, 64, 64] and len(seen["boxes"][0]) == 4
    assert hub.count("/storage/.* 206") > 0, "parts of files"


def test_a_push_of_a_data_set_that_fails_leaves_what_was_there(hub, api, conversion):
    push_dataset(conversion, PLACE, api)
    before = hub.repositories["datasets", PLACE].head
    conversion.arguments["license"] = "mit"  # of which the card speaks
    hub.faults.append(Fault("drop", "POST .*/commit/"))
    with pytest.raises(ConnectionError, match="org/boats was not pushed to: .* Push again"):
        push_dataset(conversion, PLACE, api)
    assert hub.repositories["datasets", PLACE].head == before
    push_dataset(conversion, PLACE, api)
    assert hub.repositories["datasets", PLACE].head != before
