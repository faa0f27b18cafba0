"""Real training states to save: a small language model on Python source, and what becomes of it."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

State = dict[str, Any]
_CONTEXT = 64
_VOCABULARY = 3072


class Residual(nn.Module):
    """A linear layer beside its input, so that gradients reach every layer and no two moments are alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + 0.1 * torch.tanh(self.linear(hidden))


def model_state(size_mb: int, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a residual network with an AdamW that has stepped; weights and moments take `size_mb` in all."""
    torch.manual_seed(seed)
    layers = max(1, round(size_mb * 1e6 / 12 / 1024 / 1024))
    model = nn.Sequential(*[Residual(1024) for _ in range(layers)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Do one real training step."""
    optimizer.zero_grad()
    model(torch.randn(64, 1024)).square().mean().backward()
    optimizer.step()


@cache
def source_tokens() -> torch.Tensor:
    """Return torch's own Python source as numbers of its most frequent words and signs; 0 stands for all others."""
    files = sorted(Path(torch.__file__).parent.glob("nn/**/*.py"))
    words = [word for file in files for word in re.findall(r"\w+|\s+|[^\w\s]", file.read_text())]
    numbers = {word: number + 1 for number, (word, _) in enumerate(Counter(words).most_common(_VOCABULARY - 1))}
    return torch.tensor([numbers.get(word, 0) for word in words])


class Language(nn.Module):
    """A decoder-only transformer over words, whose output shares its weights with the embedding."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_VOCABULARY, width)
        self.position = nn.Embedding(_CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(width, _VOCABULARY, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]).to(self.out.weight.dtype)
        hidden = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        logits: torch.Tensor = self.out(self.blocks(hidden, mask=mask, is_causal=True))
        return logits


class Trainer:
    """Trains a language model on source text, in the precision and on the params asked for."""

    def __init__(self, model: nn.Module, lr: float, seed: int = 0) -> None:
        self._text = source_tokens()
        self._chance = torch.Generator().manual_seed(seed)
        self.model = model
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)

    def steps(self, count: int) -> None:
        """Train on, `count` batches."""
        for _ in range(count):
            starts = torch.randint(len(self._text) - _CONTEXT - 1, (8,), generator=self._chance)
            batch = torch.stack([self._text[start : start + _CONTEXT + 1] for start in starts])
            loss = functional.cross_entropy(self.model(batch[:, :-1]).float().flatten(0, 1), batch[:, 1:].flatten())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def state(self) -> State:
        """Return model and optimizer as they are now; later steps do not change it."""
        return copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})


def training(trainer: Trainer, checkpoints: int, apart: int) -> Iterator[State]:
    """Yield states of a training, `apart` steps from each other."""
    for _ in range(checkpoints):
        trainer.steps(apart)
        yield trainer.state()


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors of a state."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)
