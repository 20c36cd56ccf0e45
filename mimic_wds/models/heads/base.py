"""An encoder that is finetuned or frozen, and a head."""

from typing import Self

from torch import nn


class EncoderAndHead(nn.Module):
    """Frozen, the encoder gets no gradient and stays in eval mode, so that stochastic depth does not go on."""

    def __init__(self, encoder: nn.Module, head: nn.Module, *, frozen: bool = False) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False) if frozen else encoder
        self.head = head
        self.frozen = frozen
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
