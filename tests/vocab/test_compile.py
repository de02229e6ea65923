import pytest
import torch

import lmx


class Head(torch.nn.Module):
    """A decoding head over the ops: masks, measures and draws."""

    def forward(self, hidden, weight, bitmask, uniforms):
        logits = hidden @ weight.t()
        _, lse = lmx.vocab.lse(logits, bitmask)
        probs = lmx.vocab.softmax(logits, bitmask, temperature=0.8, top_p=0.9)
        token, logprob = lmx.vocab.sample(logits, uniforms, bitmask, temperature=0.8, top_p=0.9)
        lmx.vocab.mask_apply_(logits, bitmask)
        return (
            token,
            logprob,
            probs,
            lse,
            lmx.vocab.argmax(logits),
            lmx.vocab.logprobs(logits, token),
        )


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_fullgraph(backend):
    head = Head()
    hidden, weight = torch.randn(4, 16), torch.randn(100, 16)
    bitmask = lmx.vocab.mask_from_bool(torch.rand(4, 100) < 0.5)
    args = (hidden, weight, bitmask, torch.rand(4))
    with torch.inference_mode():
        eager = head(*args)
        compiled = torch.compile(head, fullgraph=True, backend=backend)(*args)
    for a, b in zip(eager, compiled, strict=True):
        assert torch.equal(a, b)
