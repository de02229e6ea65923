// csrc/attention/sight.h: words of bits of which bit j stands for a key, host and device.
#pragma once
#include "../common/hostdev.h"

namespace lmx::attention {
// The lowest n bits: none for n <= 0, all for n >= 32.
LMX_HD uint32_t low_bits(int64_t n) { return n >= 32 ? ~0u : n > 0 ? (1u << n) - 1 : 0u; }

// Bits [first, first + 32) of a row of num_words words; those outside are 0.
LMX_HD uint32_t bits_at(const uint32_t* words, int64_t num_words, int64_t first) {
  const int64_t w = first >> 5;
  const int shift = static_cast<int>(first & 31);
  const uint64_t low = w >= 0 && w < num_words ? words[w] : 0;
  const uint64_t high = shift && w >= -1 && w + 1 < num_words ? words[w + 1] : 0;
  return static_cast<uint32_t>((low | high << 32) >> shift);
}
}  // namespace lmx::attention
