# SPDX-License-Identifier: Apache-2.0
"""Networks that say which attributes a face has.

    classifier(images [n, h, w, 3] in [-1, 1]) -> log-odds [n, len(classifier.attributes)], positive for present

`log_odds` asks by name. Images of another size than `classifier.resolution` are resized as the authors of the network
do it, which the docstring of its class tells.
"""

from stylegan_jax.classifiers.attributes import (
    CELEBA,
    Classifier,
    attribute_index,
    cross_entropy,
    log_odds,
)
from stylegan_jax.classifiers.celebahq import CelebaHqClassifier, CelebaHqConfig
from stylegan_jax.classifiers.convolutional import ConvolutionalClassifier, ConvolutionalConfig
from stylegan_jax.classifiers.plugged_in import FunctionClassifier, FunctionConfig
from stylegan_jax.classifiers.resnet import AttributeResNet, AttributeResNetConfig

# The classes whose networks a checkpoint can hold.
StoredClassifier = AttributeResNet | CelebaHqClassifier | ConvolutionalClassifier

__all__ = [
    "CELEBA",
    "AttributeResNet",
    "AttributeResNetConfig",
    "CelebaHqClassifier",
    "CelebaHqConfig",
    "Classifier",
    "ConvolutionalClassifier",
    "ConvolutionalConfig",
    "FunctionClassifier",
    "FunctionConfig",
    "StoredClassifier",
    "attribute_index",
    "cross_entropy",
    "log_odds",
]
