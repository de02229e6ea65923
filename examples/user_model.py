"""A small transformer of one's own on lmx's operators, compiled as a whole, that samples text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lmx  # registers torch.ops.lmx

VOCAB, WIDTH, INNER, HEADS, LENGTH = 512, 128, 384, 4, 64
ops = torch.ops.lmx


class Block(nn.Module):
    """Attention over all earlier rows, then a gated MLP; operators take and give rows."""

    def __init__(self) -> None:
        """Make random weights, one group each: ``[1, out, in]``."""
        super().__init__()
        shapes = {"qkv": (3 * WIDTH, WIDTH), "out": (WIDTH, WIDTH), "down": (WIDTH, INNER)}
        shapes |= {"gate": (INNER, WIDTH), "up": (INNER, WIDTH)}
        for name, (num_out, num_in) in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(1, num_out, num_in) / num_in**0.5))
        self.norm1 = nn.Parameter(torch.ones(1, WIDTH))
        self.norm2 = nn.Parameter(torch.ones(1, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return new rows ``[T, WIDTH]``; products add the residual themselves."""
        qkv = ops.skip_gemm(ops.skip_rmsnorm(x, self.norm1), self.qkv)
        query, key, value = qkv.view(-1, 3, HEADS, WIDTH // HEADS).permute(1, 2, 0, 3)
        rows = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = ops.skip_gemm(rows.transpose(0, 1).flatten(1), self.out, residual=x)
        inner = ops.skip_swiglu(ops.skip_rmsnorm(x, self.norm2), self.gate, self.up)
        return ops.skip_gemm(inner, self.down, residual=x)


class Model(nn.Module):
    """Two blocks between an embedding table and itself as the head."""

    def __init__(self) -> None:
        """Make random weights."""
        super().__init__()
        self.table = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.Parameter(torch.ones(1, WIDTH))

    def forward(self, tokens: Tensor, uniform: Tensor) -> Tensor:
        """Draw the token after ``tokens [T]`` with the random number ``uniform [1]``."""
        x = self.table(tokens) + self.positions.weight[: tokens.numel()]
        for block in self.blocks:
            x = block(x)
        logits = ops.skip_gemm(ops.skip_rmsnorm(x[-1:], self.norm), self.table.weight[None])
        drawn, _ = lmx.vocab.sample(logits, uniform, temperature=0.8, top_p=0.9)
        return drawn


@torch.no_grad()
def main() -> None:
    """Draw the same tokens from the model as it is and compiled."""
    torch.manual_seed(0)
    model = Model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    plain = tokens = torch.tensor([1, 2, 3])
    for position in range(8):
        uniform = lmx.vocab.uniform(torch.tensor([7]), torch.tensor([position]), purpose=1)
        plain = torch.cat((plain, model(plain, uniform)))
        tokens = torch.cat((tokens, compiled(tokens, uniform)))
    print("plain   ", plain.tolist())
    print("compiled", tokens.tolist())


if __name__ == "__main__":
    main()
