"""How a job trains: task loss, filter loss, starting weights and optimiser."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen, NonNegative, Positive
from schemas.categories import BY_ID
from schemas.data_spec import DataSpec

LossKind = Literal["logistic", "softmax"]
"""Task loss (Sec. 5.1): one logistic log loss per output, or a softmax log loss over all outputs."""

Precision = Literal["float32", "bfloat16"]
"""Numbers that training computes with."""

CHECKPOINT_EVERY = 1
"""Default number of epochs between checkpoints."""


class FilterLossSpec(Frozen):
    """The loss that makes each filter of an interpretable layer respond to one part of one category (Eq. 1)."""

    form: Literal["labelled", "exact", "full", "approximate", "released"] = "labelled"
    """How Eqs. 1-5 become a gradient; docs/filter-loss.md compares the forms. `full` and `approximate` are the two
    lines of Eq. 4, `released` is the term of the authors' code, independent of the activations' scale."""
    peak: Literal["highest", "centre_of_mass"] = "highest"
    """Which unit T-hat of the forms `approximate` and `released` peaks at: the highest (Sec. 3), or the map's rounded
    centre of mass, as in the released code. The mask stays at the highest."""
    weight: NonNegative = 1e-3
    """Weight of the loss summed over filters, relative to a task loss averaged over images."""
    schedule: Literal["inverse_epoch", "constant", "activation"] = "inverse_epoch"
    """Schedule of lambda over the epochs t: weight / t, or weight, or the paper's weight / t * mean_x max_ij x_ij
    (Sec. 5)."""
    logit_scale: Positive = 1.0
    """Scale of the template scores of the forms `labelled`, `exact` and `released`: the score in nats of a map whose
    only active unit has the filter's mean peak activation, for the template at that unit."""
    gradient_scope: Literal["layer", "network"] = "network"
    """Which weights the filter loss trains: those of the interpretable layer only, or those of all trained layers."""
    assignment: Literal["running", "steady"] = "running"
    """How the category that activates a filter most is found in multi-category networks: by a running mean over
    batches (the authors' released code), or by a mean over more images with a margin before a filter changes its
    category. In a single-category network all filters have its category, as in the released code."""


class UpstreamSpec(Frozen):
    """How an upstream job trains that gives starting weights."""

    epochs: Annotated[int, Field(ge=1)] = 8
    """Number of epochs of the upstream job."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per batch."""
    learning_rate: Positive = 0.05
    """Learning rate of the first epoch; it decays log-spaced to a hundredth of this."""
    max_grad_norm: Positive | None = 1.0
    """Gradient clipping norm; None disables clipping."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability. The default is 0 because narrow networks underfit within the few epochs of pre-training."""
    seed: int = 0
    """Seed of the upstream job."""


class PretrainSpec(UpstreamSpec):
    """Starting weights from an upstream job: the same backbone, trained on many categories at once."""

    source: Literal["pretrain"] = "pretrain"
    """Discriminator of `WeightsSpec`."""
    data: DataSpec
    """Images and classes of the upstream job."""


class EverythingSpec(UpstreamSpec):
    """Starting weights from an upstream job: the same backbone, trained on every labelled photograph of the data root
    that no job of the same split is tested on."""

    source: Literal["everything"] = "everything"
    """Discriminator of `WeightsSpec`."""
    data: DataSpec = DataSpec(categories=tuple(BY_ID), images="photographs", labels="everything")
    """Images and classes of the upstream job. The planner fills in what the data root has. The split is the job's."""
    epochs: Annotated[int, Field(ge=1)] = 60
    """Number of epochs of the upstream job."""


class TorchvisionWeights(Frozen):
    """Starting weights as published by torchvision (ImageNet)."""

    source: Literal["torchvision"] = "torchvision"
    """Discriminator of `WeightsSpec`."""


class ImagenetWeights(Frozen):
    """Starting weights of ImageNet as the backbone's publisher distributes them: in a package of the extra
    `[imagenet]`, or torchvision's, for which planning puts `torchvision` in its place."""

    source: Literal["imagenet"] = "imagenet"
    """Discriminator of `WeightsSpec`."""


class FileWeights(Frozen):
    """Starting weights from a file, see docs/weights.md."""

    source: Literal["file"] = "file"
    """Discriminator of `WeightsSpec`."""
    path: str
    """Path of the weights file. It is not part of the job's key once `sha256` is known."""
    sha256: str = ""
    """SHA-256 of the file, which identifies the weights in the job's key. The planner fills it in."""
    label: str = ""
    """Description of the weights for tables and figures, read from an imported file. The planner fills it in."""


class RandomWeights(Frozen):
    """Random starting weights."""

    source: Literal["random"] = "random"
    """Discriminator of `WeightsSpec`."""


WeightsSpec = Annotated[
    PretrainSpec | EverythingSpec | TorchvisionWeights | ImagenetWeights | FileWeights | RandomWeights,
    Field(discriminator="source"),
]
"""Source of the backbone's starting weights."""


class TrainSpec(Frozen):
    """Optimisation (SGD with momentum), augmentation and checkpoints."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Number of epochs."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images per batch; at least 2, because the filter loss normalises over the images of a batch (Eq. 2)."""
    learning_rate: Positive = 0.01
    """Learning rate of the first epoch."""
    final_learning_rate: Positive | None = None
    """Learning rate reached log-spaced over `decay_epochs` and then held; None keeps `learning_rate`."""
    decay_epochs: Annotated[int, Field(ge=1)] | None = None
    """Number of epochs over which the learning rate decays; None decays over all epochs."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay (L2 penalty) of the weights; biases have none."""
    freeze_below: str | None = None
    """First trained layer; the layers before it are frozen. A layer's name such as `conv4`, or `top_conv` for the
    backbone's last convolution. None trains every layer (the paper)."""
    horizontal_flip: bool = True
    """Whether a random half of the training images is flipped left to right, drawn again in each epoch."""
    bias_lr_multiplier: Positive = 1.0
    """Learning-rate multiplier for the biases of the backbone's top convolution; 5 in the released code."""
    new_bias_lr_multiplier: Positive = 1.0
    """Learning-rate multiplier for the biases of the new layers (conv6, fc6 to fc8); 2 in the released code."""
    max_grad_norm: Positive | None = None
    """Gradient clipping norm over all parameters; None disables clipping."""
    precision: Precision = "float32"
    """What convolutions and fully-connected layers compute with in training. With bfloat16, weights, filter losses and
    everything measured stay in float32. TF32 is off with both."""
    deterministic: bool = True
    """Whether training steps use only kernels whose result does not depend on timing. False lets cuDNN time its kernels
    and take the fastest: on a GPU the same job then ends with other bits each time, also after a resumption. Features
    of frozen layers and everything measured stay deterministic. It changes nothing on a CPU."""
    checkpoint_every: Annotated[int, Field(ge=1)] = CHECKPOINT_EVERY
    """Number of epochs between checkpoints. It does not change the result and is not part of the job's key."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Number of batches between checkpoints within an epoch; None saves at the end of epochs only. It is not part of
    the job's key."""
