"""What grammar tests share: small vocabularies, and masks as sets."""

import torch

from lmx import grammar
from lmx.grammar import Compiler, Grammar, Matcher, TokenizerInfo

EOS = "</s>"


def small_info(*tokens: bytes | str) -> TokenizerInfo:
    """A vocabulary of tokens and one stop token, the last."""
    return TokenizerInfo([*tokens, EOS])


def matcher(language: str | Grammar, info: TokenizerInfo, **options) -> Matcher:
    return Matcher(Compiler(info, **options).compile(language))


def allowed(m: Matcher, info: TokenizerInfo) -> set[int]:
    """The tokens of the matcher's mask."""
    bitmask = grammar.new_bitmask(1, info.vocab_size)
    m.fill(bitmask)
    words = bitmask[0]
    return {t for t in range(info.vocab_size) if words[t // 32] >> (t % 32) & 1}


def row(m: Matcher, info: TokenizerInfo) -> torch.Tensor:
    bitmask = torch.zeros(1, info.mask_words, dtype=torch.int32)
    m.fill(bitmask)
    return bitmask[0]
