"""What nodes take: undisturbed, finer than the clock's step, and without what the recording adds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime.latency import profile as subject
from onnx_prune.runtime.latency.profile import named, profile, recording_ms
from onnx_prune.runtime.measure.latency import compare

CHAIN = 150


@pytest.mark.parametrize(
    ("durations", "told"),
    [
        ([2, 3, 3, 3] * 10, 2.75),  # between two steps of the clock
        ([100] * 30 + [104] * 10 + [250] * 60, 101.0),  # disturbed runs do not count, however many
        ([7], 7.0),
    ],
)
def test_a_node_takes_what_its_undisturbed_runs_take(durations, told):
    assert subject._undisturbed(durations) == pytest.approx(told)


def test_the_sum_of_many_small_nodes_is_what_they_take_when_nobody_records():
    steps = " ".join(f"t{i + 1} = Sum(t{i}, w, w)" for i in range(CHAIN))
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 8, 8, 8] t0) => (float[1, 8, 8, 8] t{CHAIN}) <float[1] w = {{0.5}}> {{ {steps} }}
    """)
    feeds = {"t0": np.ones((1, 8, 8, 8), np.float32)}
    assert any(_recording_is_taken_off(model, feeds) for _ in range(4)), "others may spoil one measurement, not four"


def _recording_is_taken_off(model, feeds):
    """Whether recording mattered, and the nodes' sum is nearer to the whole than with what it adds."""
    (whole,) = compare([model], feeds, seconds=0.3, device="cpu", threads=1)
    nodes = profile(named(model), feeds, seconds=0.3, device="cpu")
    told = sum(node.ms for node in nodes)
    with_recording = told + CHAIN * recording_ms("cpu")
    return with_recording > 1.3 * whole.wall and abs(told - whole.wall) < 0.7 * abs(with_recording - whole.wall)


@pytest.mark.parametrize("left", [b"", b'[{"cat": "No', b"\xff", b'[{"cat": "Node"}]'])
def test_a_record_for_which_there_was_no_room_is_said(left, tmp_path):
    """ONNX Runtime does not tell that its file is cut off."""
    file = tmp_path / "profile.json"
    file.write_bytes(left)
    with pytest.raises(ReadError, match="cannot be read back") as raised:
        subject.recorded(file, subject._times)
    assert "TMPDIR" in raised.value.fix
