"""Files that fuzzing found to be answered wrongly once."""

from __future__ import annotations

import json
import struct
import zipfile
from io import BytesIO

import pyarrow as pa
import pytest

from ckptlake.errors import DamagedCheckpointError
from ckptlake.runs.frames import pack_rows
from tests.fuzz import resealing
from tests.fuzz.mutations import MANIFEST
from tests.fuzz.targets import LONGEST_MESSAGE, TARGETS


def refused(target: str, data: bytes, words: str) -> None:
    reader = TARGETS[target]
    reader.check(data)
    with pytest.raises(reader.declared, match=words) as caught:
        reader.read(data if reader.reseal is None else reader.reseal(data))
    assert len(str(caught.value)) <= LONGEST_MESSAGE


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_manifest_with_numbers_that_json_does_not_have(number: str) -> None:
    """It was read, and could not be written again."""
    valid = TARGETS["manifest"].specimens()[0]
    data = valid.replace(b'"tree":', b'"tree":[%s],"was":' % number.encode())
    assert data != valid
    refused("manifest", data, "where a finite number should be")


def test_a_manifest_whose_damage_is_long() -> None:
    valid = TARGETS["manifest"].specimens()[0]
    fields = MANIFEST.parts(valid)
    refused("manifest", MANIFEST.whole(valid, {**fields, "created_at": "x" * 50_000}), "isoformat")


def test_a_pack_whose_damage_is_long() -> None:
    text = json.dumps({"a": {"dtype": "9" * 50_000, "shape": [], "data_offsets": [0, 0]}}).encode()
    refused("raw_pack", struct.pack("<Q", len(text)) + text, "cannot be read")


def test_a_segment_whose_damage_is_long() -> None:
    (magic, number, payload), *rest = resealing.frames(TARGETS["segment"].specimens()[0])
    for name in ("writer", "lake_id", "pid"):
        fields = {**json.loads(payload), name: "9" * 50_000}
        data = resealing.framed([(magic, number, json.dumps(fields).encode()), *rest])
        TARGETS["segment"].check(data)


def test_a_segment_whose_offsets_lead_out_of_their_frame() -> None:
    """Arrow followed them when it was asked how large the batch is, and the process ended."""
    (magic, number, header), *_ = resealing.frames(TARGETS["segment"].specimens()[0])
    batch = pack_rows("checkpoints", [{"metrics": {"a": 1.0, "b": 2.0}, "packs": ["x", "y", "z"], "note": "text"}])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    payload = sink.getvalue().to_pybytes()
    told = 0
    for place in range(0, len(payload), 4):
        if 1 <= int.from_bytes(payload[place : place + 4], "little") <= 9:
            changed = payload[:place] + (2**31 - 8).to_bytes(4, "little") + payload[place + 4 :]
            TARGETS["segment"].check(resealing.framed([(magic, number, header), (b"CKL1", number, changed)]))
            told += 1
    assert told > 50


def stored(content: bytes) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.npy", content)
    return made.getvalue()


def test_an_npz_with_an_entry_before_the_file() -> None:
    data = TARGETS["npz"].specimens()[0][1:]
    with pytest.raises(DamagedCheckpointError, match="outside of the file"):
        TARGETS["npz"].read(data)


def test_an_npz_with_a_header_of_unclosed_brackets() -> None:
    head = b"{'descr': '<f4', 'fortran_order': False( 'shape': (2,), }".ljust(117) + b"\n"
    data = stored(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(8))
    refused("npz", data, "cannot be read as numpy's")
