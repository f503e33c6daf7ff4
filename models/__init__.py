"""Reference networks of the papers as pure builders, and a small trained demo. Needs numpy and onnx, nothing else.

| builder          | network                     | what its graph brings                                        |
|------------------|-----------------------------|--------------------------------------------------------------|
| `lenet5`         | LeNet-5 (Caffe's widths)    | Flatten of a map into Gemm                                   |
| `vgg16_cifar`    | VGG-16, CIFAR               | a plain chain; BatchNorm after a Gemm                        |
| `vgg16_imagenet` | VGG-16, ImageNet            | Flatten of 512 x 7 x 7                                       |
| `resnet_cifar`   | ResNet-20 ... 110, CIFAR    | residual sums; option A (Slice, Pad) or B (projection)       |
| `resnet34`       | ResNet-34                   | basic blocks                                                 |
| `resnet50`       | ResNet-50, v1.5 or v1       | bottlenecks                                                  |
| `mobilenet_v1`   | MobileNetV1                 | depthwise convolutions                                       |
| `mobilenet_v2`   | MobileNetV2                 | depthwise convolutions within inverted residuals, Clip       |
| `densenet40`     | DenseNet-40, CIFAR          | nested concatenations, BatchNorm before the convolution      |
| `unet`           | a small U-Net               | skip concatenations, ConvTranspose                           |
| `digits_resnet`  | the demo's network          | all of a small ResNet at 8x8                                 |

Every builder returns a float32 ModelProto with seeded weights, BatchNorm statistics that are not trivial, and a free
batch axis. `digits_model()` and `digits_data()` are the paths of the trained demo and its images.
"""

from .builder import NetBuilder, Tensor, with_initializers
from .densenet import densenet40
from .digits import digits_data, digits_model, digits_resnet
from .lenet import lenet5
from .mobilenet import mobilenet_v1, mobilenet_v2
from .resnet import resnet34, resnet50, resnet_cifar
from .unet import unet
from .vgg import vgg16_cifar, vgg16_imagenet

__all__ = [
    "NetBuilder",
    "Tensor",
    "densenet40",
    "digits_data",
    "digits_model",
    "digits_resnet",
    "lenet5",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet34",
    "resnet50",
    "resnet_cifar",
    "unet",
    "vgg16_cifar",
    "vgg16_imagenet",
    "with_initializers",
]
