"""The network: a small convolutional classifier for images of 8 by 8 pixels."""

import torch
from torch import nn


class DigitsNet(nn.Module):
    """Two convolutions, a pooling, two linear layers.

    There is no batch normalization: its running statistics would be another thing for ranks to agree on.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.25),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, num_classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify images.

        Args:
            image: float32 [batch, 1, 8, 8], grey values from 0 to 1.

        Returns:
            Logits: float32 [batch, num_classes].
        """
        return self.classifier(self.features(image))
