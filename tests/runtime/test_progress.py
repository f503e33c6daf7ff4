"""How far work is, in words."""

from onnx_prune.runtime.progress import counted, silent


def test_a_count_becomes_a_stage_with_its_total_where_one_is_known():
    told = []
    counted(told.append, "calibrating", "samples")(3, None)
    counted(told.append, "calibrating", "samples", of=8)(3, None)
    counted(told.append, "refitting", "layers", of=8)(3, 4)
    assert told == ["calibrating: 3 samples", "calibrating: 3 of 8 samples", "refitting: 3 of 4 layers"]


def test_silence_takes_stages_and_counts():
    silent("proving")
    silent(3, None)
