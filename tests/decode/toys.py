"""Small models whose answers are known, and SmolLM2, loaded once for all tests."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import lmx
from lmx.decode import Sampling
from lmx.grammar import Compiler, Grammar, TokenizerInfo
from lmx.grammar.constraint import GrammarConstraint
from lmx.models import smollm2
from lmx.protocols import Attend, Learned, Linear

END = 0  # the end token of ByteTokenizer


class ByteTokenizer:
    """Token t is byte t; byte 0 ends a text and is special."""

    chat_template = None

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool, **_: bool) -> str:
        kept = [t for t in tokens if t != END or not skip_special_tokens]
        return bytes(kept).decode("utf-8", "replace")

    def apply_chat_template(self, messages: list[dict[str, str]], **_: bool) -> list[int]:
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages))


class FunctionModel:
    """No layers: the logits after a token are any function of its position and id."""

    num_layers, num_heads, num_kv_heads, head_dim = 0, 1, 1, 8
    softmax_scale = 1.0
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(
        self,
        logits: Callable[[int, int], Tensor],
        vocab_size: int,
        tokenizer: ByteTokenizer | None = None,
        max_positions: int = 4096,
    ) -> None:
        self._logits = logits
        self.vocab_size = vocab_size
        self.max_positions = max_positions
        self.position = Learned(num_positions=max_positions)
        self.tokenizer = tokenizer
        self.eos_ids = (END,) if tokenizer else ()

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return torch.stack((positions.float(), tokens.float()), dim=-1)

    def attn(self, i: int, hidden: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        raise NotImplementedError

    def mlp(self, i: int, hidden: Tensor) -> Tensor:
        raise NotImplementedError

    def norm_head(self, hidden_rows: Tensor) -> Tensor:
        return torch.stack([self._logits(int(p), int(t)) for p, t in hidden_rows.tolist()])

    def weights(self, i: int, name: str) -> Linear:
        raise NotImplementedError

    def window(self, i: int) -> int:
        return -1


def says(answer: str | bytes, prompt: str = "?", max_positions: int = 4096) -> FunctionModel:
    """Return a model that answers ``prompt`` with ``answer``, byte by byte, and then ends."""
    script = answer.encode() if isinstance(answer, str) else answer
    first = len(prompt.encode()) - 1

    def logits(position: int, token: int) -> Tensor:
        row, at = torch.zeros(256), position - first
        row[script[at] if at < len(script) else END] = 9.0
        return row

    return FunctionModel(logits, 256, ByteTokenizer(), max_positions)


def table_model(vocab_size: int, num_positions: int = 8) -> FunctionModel:
    """Return a model with a random law for each position and last token."""
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(num_positions, vocab_size, vocab_size, generator=generator) * 1.5
    return FunctionModel(lambda position, token: table[position, token], vocab_size)


@functools.cache
def tiny_hf(window: int | None = None) -> torch.nn.Module:
    """Return a random Transformers model of two layers; ``window`` slides over its attention."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    config = MistralConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=199,
        max_position_embeddings=2048,
        sliding_window=window,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return MistralForCausalLM(config).eval()


@functools.cache
def tiny(window: int | None = None, dtype: torch.dtype | None = None) -> lmx.models.Llama:
    """Return ``tiny_hf`` seen as layers."""
    return lmx.load(tiny_hf(window), dtype=dtype)


@functools.cache
def smollm2_hf() -> torch.nn.Module:
    """Return SmolLM2 as Transformers runs it, float32."""
    from transformers import AutoModelForCausalLM

    folder = smollm2.cached_folder(torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@functools.cache
def smollm2_layers() -> lmx.models.Llama:
    """Return SmolLM2 seen as layers, over the weights of ``smollm2_hf``."""
    from transformers import AutoTokenizer

    model = lmx.load(smollm2_hf())
    model.tokenizer = AutoTokenizer.from_pretrained(smollm2.cached_folder(torch.float32))
    return model


@functools.cache
def smollm2_bf16() -> lmx.models.Llama:
    """Return SmolLM2 seen as layers, in bfloat16."""
    return lmx.load("smollm2", dtype=torch.bfloat16)


def drain(engine: lmx.Engine) -> dict[int, lmx.Generation]:
    """Step until nothing is left; return all answers by id."""
    answers = {}
    while engine.num_unfinished:
        engine.step()
        answers |= engine.finished()
    return answers


def settings(count: int) -> list[Sampling]:
    """Return different settings, each with log-probabilities, every fourth one greedy."""
    mixed = [
        {},
        {"temperature": 0.7},
        {"temperature": 1.1, "top_k": 9},
        {"temperature": 1.0, "top_p": 0.8},
    ]
    return [Sampling(seed=i, logprobs=1, **mixed[i % 4]) for i in range(count)]


def random_prompts(count: int, vocab_size: int, longest: int = 40) -> list[list[int]]:
    """Return prompts of random tokens and lengths."""
    generator = torch.Generator().manual_seed(11)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [torch.randint(vocab_size, (n,), generator=generator).tolist() for n in lengths]


def byte_grammar(grammar: Grammar) -> GrammarConstraint:
    """Return a grammar as a constraint over the tokens of ``ByteTokenizer``."""
    info = TokenizerInfo([b"", *(bytes([b]) for b in range(1, 256))], stop_ids=[END])
    return GrammarConstraint(Compiler(info).compile(grammar))
