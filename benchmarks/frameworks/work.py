"""What is to be done, the same for all frameworks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTEXT", "FLOW_HIDDEN", "FLOW_STEPS", "Work"]

FLOW_STEPS, FLOW_HIDDEN, CONTEXT = 2, (64, 64), 64  # of the model "flow": what its encoder gives, steps and networks


@dataclass(frozen=True)
class Work:
    """A model of 28x28 binary images, and how to train it with Adam.

    mlp:  encoder 784-hidden-2*latent, normal posterior, decoder latent-hidden-784, Bernoulli likelihood
    conv: 3x3 convolutions with stride 2 to 32 and 64 channels and a linear layer; the decoder, 4x4, mirrors it
    flow: mlp, with an inverse autoregressive flow of two steps after the normal posterior
    """

    model: str = "mlp"
    hidden: int = 400
    latent: int = 50
    activation: str = "silu"  # or softplus, relu
    scale: str = "softplus"  # or exp: what makes a positive scale of the encoder's output
    initial: str = "he"  # or torch, stax: the law of the first weights
    batch_size: int = 128
    lr: float = 1e-3
    epochs: int = 1
    decay: bool = False  # whether the learning rate falls linearly, epoch by epoch, to lr / epochs
    sampled_kl: bool = False  # a flow's always is
    dynamic: bool = False  # whether images are binarized anew at every step
    device: str = "cpu"
    seed: int = 0
