"""A trained network together with its normalisation, as a module that takes images as they are.

Shape legend: N images   S input side   F filters   H = W map side   O outputs.
"""

from __future__ import annotations

from torch import Tensor, nn

from interp_model.network import Network, output_probabilities, to_input
from schemas.errors import SpecError
from schemas.training_spec import LossKind


class TrainedNetwork(nn.Module):
    """A trained network with its normalisation: RGB images from 0 to 1 in, logits out."""

    def __init__(self, network: Network, mean_SS3: Tensor, labels: tuple[str, ...], loss: LossKind) -> None:
        """
        Args:
            network: the network, in evaluation mode.
            mean_SS3: mean image of its training set, 0 to 255.
            labels: name of each output.
            loss: task loss, which decides what probabilities are.
        """
        super().__init__()
        self.network, self.labels, self.loss = network, labels, loss
        self.mean_SS3: Tensor
        self.register_buffer("mean_SS3", mean_SS3.float())
        self.eval()

    @property
    def input_size(self) -> int:
        """S, the side of the images, pixels."""
        return self.network.input_size

    def forward(self, image_N3SS: Tensor) -> Tensor:
        """Return the logits: (N, O).

        Args:
            image_N3SS: RGB images, 0 to 1.

        Raises:
            SpecError: the images have another shape or type.
        """
        logits: Tensor = self.network(self._input(image_N3SS)).logits
        return logits

    def probabilities(self, image_N3SS: Tensor) -> Tensor:
        """Return the probability of each output: (N, O); with a softmax loss they sum to 1."""
        return output_probabilities(self(image_N3SS), self.loss)

    def maps(self, image_N3SS: Tensor) -> Tensor:
        """Return the maps of the measured layer after ReLU and before masking: (N, F, H, W)."""
        found: Tensor = self.network(self._input(image_N3SS)).maps[self.network.top_layer]
        return found

    def _input(self, image_N3SS: Tensor) -> Tensor:
        wanted = (3, self.input_size, self.input_size)
        if image_N3SS.ndim != 4 or tuple(image_N3SS.shape[1:]) != wanted or not image_N3SS.is_floating_point():
            raise SpecError(
                f"The network takes float images from 0 to 1 of shape (N, {', '.join(map(str, wanted))}), not "
                f"{image_N3SS.dtype} of shape {tuple(image_N3SS.shape)}. Resize them, and divide bytes by 255."
            )
        return to_input(255 * image_N3SS.permute(0, 2, 3, 1), self.mean_SS3)
