"""mIoU and mAP as metrics of a run: prune keeps them, the smallest model that does is found, and faults are said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_prune import AccuracyError, ReadError, UsageError, prune
from onnx_prune.runtime.measure.metric import Evaluation, make_metric, metric_words, title

from .coloured import MASKS, blinder, colour_network, pixels, save, write_images
from .test_boxes import CATEGORIES, write_coco

pytest.importorskip("pycocotools", reason="mean average precision needs the extra 'detection'")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Images with masks."""
    folder = tmp_path_factory.mktemp("scenes")
    write_images(folder / "images")
    for number, mask in enumerate(MASKS):
        save(mask, folder / f"masks/{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder)
    return folder


def kind(name, scenes, coco):
    return (colour_network(), scenes, scenes / "images") if name == "miou" else (
        colour_network(detector=True), coco, coco / "val")  # fmt: skip


@pytest.mark.parametrize("name", ["miou", "map:decoder=yolov8", "map50:decoder=yolov8"])
def test_the_original_scores_one_and_one_that_misses_a_class_less(scenes, coco, name):
    network, folder, _ = kind(name, scenes, coco)
    metric = make_metric(name, network, Evaluation(folder, device="cpu"))
    assert metric.of(network) == pytest.approx(1)
    assert 0.3 < metric.of(blinder(network, 2)) < 0.8
    assert (title(name), metric_words(name, 0.5)) == (title(metric.name), "50.00%")


@pytest.mark.parametrize("name", ["miou", "map:decoder=yolov8"])
def test_the_smallest_model_that_keeps_it_is_found(scenes, coco, name):
    network, folder, images = kind(name, scenes, coco)
    result = prune(
        network, calibration=images, evaluate=folder, metric=name, max_drop="1%", align=1, measure=False, device="cpu"
    )
    before, after = result.report.score
    assert before == pytest.approx(1)
    assert after >= 0.99
    assert result.report.macs[1] < 0.5 * result.report.macs[0]
    assert any(not row.holds for row in result.report.tries)


@pytest.mark.parametrize("name", ["miou", "map:decoder=yolov8"])
def test_a_budget_that_loses_it_is_refused(scenes, coco, name):
    network, folder, _ = kind(name, scenes, coco)
    with pytest.raises(AccuracyError, match=r"fell from 100\.00%"):
        prune(network, budget=0.15, calibration="none", reconstruct="none", criterion="l1", evaluate=folder,
              metric=name, max_drop="1%", align=1, measure=False)  # fmt: skip


def test_options_follow_the_word(coco):
    network = colour_network(detector=True)
    with pytest.raises(UsageError, match="the original scores 0"):
        make_metric("map:decoder=yolov8,ids", network, Evaluation(coco)).of(network)
    assert make_metric("map:decoder=yolov8", network, Evaluation(coco)).of(network) == pytest.approx(1)
    for wrong, words in (
        ("map:decoder=x", "no decoder 'x'"),
        ("map:colour=2", "no option 'colour'"),
        ("miou:ignore=x", "not a value"),
    ):
        with pytest.raises(UsageError, match=words):
            make_metric(wrong, network, Evaluation(coco)).of(network)


def test_what_cannot_be_measured_is_said_before_the_work(scenes, coco, tmp_path):
    network = colour_network()
    with pytest.raises(UsageError, match="give --evaluate"):
        prune(network, metric="miou:ignore=0")
    with pytest.raises(ReadError, match="no such file"):
        make_metric("miou", network, Evaluation(tmp_path / "nothing"))
    with pytest.raises(ReadError, match="no image has boxes"):
        make_metric("map", network, Evaluation(scenes))
    with pytest.raises(UsageError, match="boxes are read from files"):
        make_metric("map", network, Evaluation({"input": np.zeros((1, 3, 64, 64), np.float32)}))
    assert CATEGORIES


def test_masks_may_be_arrays(tmp_path):
    network = colour_network()
    images = (pixels(MASKS).transpose(0, 3, 1, 2) / 255).astype(np.float32)
    metric = make_metric("miou", network, Evaluation({"input": images, "label": MASKS}))
    assert metric.of(network) == 1
    assert metric.of(blinder(network, 1)) < 0.8
    np.savez(tmp_path / "masks.npz", input=images, label=MASKS)
    assert make_metric("miou", network, Evaluation(str(tmp_path / "masks.npz"))).of(network) == 1
    with pytest.raises(UsageError, match="there are no masks"):
        make_metric("miou", network, Evaluation({"input": images}))

    def share(outputs, labels):
        return (outputs["scores"].argmax(1) == labels).mean()

    assert make_metric(share, network, Evaluation({"input": images, "label": MASKS})).of(network) == 1
    assert isinstance(network, onnx.ModelProto)
