"""Runs fine-tuning in processes of its own, for tests that kill them or let several work together.

`python processes.py FOLDER` does both and writes what came out as .onnx files. Everything is imported once and then
forked; with one thread alone torch can stand that.
"""

import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import onnx
import torch
from onnx_prune import models
from onnx_prune.models.builder import NetBuilder
from onnx_prune.runtime.torch.training.finetune import finetune
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.run import Examples, Keeping, Watch

TEST, CALIBRATION = (str(path) for path in models.digits_data())
KILLS = 10


def net(seed):
    """Two convolutions, their BatchNormalization folded."""
    net = NetBuilder("tiny", (1, 8, 8), folded=True, seed=seed)
    x = net.relu(net.conv(net.input, "conv1", 8, norm="bn1"), "relu1")
    x = net.relu(net.conv(x, "conv2", 8, stride=2, norm="bn2"), "relu2")
    return net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flatten"), "fc", 10))


def tuned(folder, name, recipe, **options):
    """Fine-tune a small network, write the result as NAME.onnx."""
    student, teacher = net(0), net(1)
    result = finetune(student, Examples(CALIBRATION, TEST, teacher=teacher), recipe, **options)
    if result.first:
        onnx.save(result.model, folder / f"{name}.onnx")


def forked(job):
    """The id of a process that does the job."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        job()
        code = 0
    finally:
        os._exit(code)


def ended(number):
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kills(folder):
    """An unbroken run, and one that is killed at random moments and resumed; prints what was found after each kill."""
    recipe = Recipe(epochs=8, batch=50, precision="float32", augment=("crop",), average=0.9)
    whole = folder / "seconds"

    def unbroken():
        begun = []
        watch = Watch(stage=lambda line: begun.append(time.process_time()) if line.startswith("fine-tuning") else None)
        tuned(folder, "unbroken", recipe, keeping=Keeping(folder / "other", seconds=0.0), watch=watch)
        whole.write_text(str(time.process_time() - begun[0]))

    def to_be_killed(moment):
        """The kernel ends it that much CPU time after the first step, wherever it is: nothing can be tidied up."""
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        armed = []

        def arm(line):
            if line.startswith("fine-tuning") and not armed:
                armed.append(signal.setitimer(signal.ITIMER_PROF, moment))

        tuned(folder, "killed", recipe, keeping=Keeping(folder / "run", resume=True, seconds=0.0), watch=Watch(arm))

    assert ended(forked(unbroken)) == 0
    moments, done = random.Random(0), []
    for _ in range(KILLS):
        moment = moments.uniform(0.01, 0.1) * float(whole.read_text())
        assert ended(forked(lambda moment=moment: to_be_killed(moment))) in (0, -signal.SIGPROF)
        checkpoint = folder / "run" / "checkpoint.pt"
        state = torch.load(checkpoint) if checkpoint.exists() else {"epoch": 0, "step": 0}
        done.append((state["epoch"], state["step"]))
    assert ended(forked(lambda: to_be_killed(3600))) == 0
    print(done)  # noqa: T201 - the test reads it


def pair(folder):
    """One process, and two that share its batches."""
    recipe = Recipe(epochs=2, batch=101, precision="float32", augment=("crop", "mixup"), rate=0.02)
    assert ended(forked(lambda: tuned(folder, "one", recipe))) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")

    def take_part(rank):
        os.environ["RANK"] = str(rank)
        tuned(folder, "two", recipe)

    numbers = [forked(lambda rank=rank: take_part(rank)) for rank in range(2)]
    assert [ended(number) for number in numbers] == [0, 0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    tuned(place, "warm", Recipe(epochs=1, batch=50, precision="float32"))  # imports what is imported late
    kills(place)
    pair(place)
