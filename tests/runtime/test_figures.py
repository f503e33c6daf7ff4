"""Numbers have three digits, and names fit their column."""

import pytest
from onnx_prune.runtime.figures import count, digits, duration, listed, shortened, shortened_inside, size


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (96_560, "96.6 k"),
        (999_600, "1.00 M"),
        (125.49e6, "125 M"),
        (4e9, "4.00 G"),
    ],
)
def test_counts_have_three_digits(value, said):
    assert count(value) == said


def test_sizes_and_times_have_too():
    assert [size(n) for n in (12, 391_160, 2.5e9)] == ["12 B", "391 kB", "2.50 GB"]
    assert [digits(v) for v in (0.08853, 3.1, 391.16, 12345.6)] == ["0.0885", "3.10", "391", "12346"]
    assert [duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1:01 min", "1:02 h"]


def test_long_names_lose_their_middle():
    name = "StatefulPartitionedCall/" + "a;b;c/" * 20 + "Conv2D"
    assert shortened("conv1") == "conv1"
    assert len(shortened(name)) == 44
    assert shortened(name).startswith("StatefulPartitioned")
    assert shortened(name).endswith("/Conv2D")
    assert shortened_inside(f"graph output '{name}' and 'x'") == f"graph output '{shortened(name)}' and 'x'"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
