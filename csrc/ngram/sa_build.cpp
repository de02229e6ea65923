// csrc/ngram/sa_build.cpp: CPU side of sa_build.h.
#include "sa_build.h"

#include "sort_text.h"

namespace lmx::ngram::LMX_ISA {
namespace {
template <typename Token>
void build(const SaBuildParams& p) {
  const auto* text = static_cast<const Token*>(p.text);
  const int64_t tokens =
      p.num_tokens - std::count(text, text + p.num_tokens, static_cast<Token>(~Token{0}));
  if (tokens != p.num_suffixes)
    throw std::invalid_argument(
        "lmx::ngram_sa_build: expected num_suffixes " + std::to_string(tokens) +
        ", the tokens that are no separator, got " + std::to_string(p.num_suffixes));
  const std::unique_ptr<int32_t[]> all(new int32_t[static_cast<size_t>(p.num_tokens)]);
  const auto ignore = [](int32_t) {};
  sort_text(text, p.num_tokens, p.vocab_size, all.get(), ignore);
  std::memcpy(p.sa, all.get(), static_cast<size_t>(p.num_suffixes) * 4);
}
}  // namespace

void sa_build_cpu(const SaBuildParams& p) {
  switch (p.token_bytes) {
    case 1: return build<uint8_t>(p);
    case 2: return build<uint16_t>(p);
    default: return build<uint32_t>(p);
  }
}
}  // namespace lmx::ngram::LMX_ISA
