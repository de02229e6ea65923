// csrc/vocab/mask.cpp: CPU side of mask.h. Memory bound; a mask word of ones costs applying
// nothing, a word of zeros no load.
#include "mask.h"

#include <bit>
#include <cstring>

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
constexpr int64_t kGrainWords = 2048;

// Calls f(row, begin, end) for pieces of rows of `words` words; a division per piece, not per word.
template <typename F>
void for_row_pieces(int64_t num_rows, int64_t words, const F& f) {
  if (words == 0) return;
  const int64_t pieces = ceil_div(words, kGrainWords);
  parallel_for(0, num_rows * pieces, std::max<int64_t>(1, kGrainWords / words),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t first = i % pieces * kGrainWords;
                   f(i / pieces, first, std::min(words, first + kGrainWords));
                 }
               });
}

template <typename T>
void apply_word(T* x, uint32_t allowed) {
  if (allowed == ~0u) return;
  if (allowed == 0) {
    std::fill_n(x, 32, from_float<T>(-INFINITY));
  } else if constexpr (sizeof(T) == 4) {
    for (int j = 0; j < 32; j += kLanes)
      store(x + j, select(allowed >> j, load(x + j), Vec(-INFINITY)));
  } else {
    for (int j = 0; j < 32; j += 16)
      blend16(reinterpret_cast<uint16_t*>(x + j), allowed >> j,
              std::bit_cast<uint16_t>(from_float<T>(-INFINITY)));
  }
}

template <typename T>
void apply_rows(const MaskApplyParams& p) {
  const Rows& r = p.rows;
  for_row_pieces(r.num_rows, ceil_div<int64_t>(r.vocab_size, 32),
                 [&](int64_t row, int64_t begin, int64_t end) {
                   if (row_status(r, row)) return;
                   const uint32_t* words = row_mask(r, row);
                   T* x = static_cast<T*>(const_cast<void*>(r.logits)) + row * r.row_stride;
                   for (int64_t w = begin; w < end; ++w) {
                     const uint32_t allowed = mask_word(r, words, w);
                     const int64_t n = std::min<int64_t>(32, r.vocab_size - w * 32);
                     if (n == 32)
                       apply_word(x + w * 32, allowed);
                     else
                       for (int64_t j = 0; j < n; ++j)
                         if (!(allowed >> j & 1)) x[w * 32 + j] = from_float<T>(-INFINITY);
                   }
                 });
}

// 32 bytes to 32 bits and back; AVX2 does a word in three instructions, and every level has it.
inline uint32_t pack(const uint8_t* bools) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bools));
  return ~static_cast<uint32_t>(
      _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
}
inline void unpack(uint32_t word, uint8_t* bools) {
  const __m256i spread = _mm256_shuffle_epi8(  // byte j of the result is byte j / 8 of the word
      _mm256_set1_epi32(static_cast<int>(word)),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i hit = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bools),
                      _mm256_and_si256(hit, _mm256_set1_epi8(1)));
}

}  // namespace

void mask_apply_cpu(const MaskApplyParams& p) {
  check_rows(
      "vocab_mask_apply_", p.rows.num_rows, p.status,
      [&](int64_t row) { return row_status(p.rows, row); },
      [&](int64_t row) { return complaint(p.rows, {}, row); });
  visit_dtype(p.rows.dtype, [&](auto type) { apply_rows<decltype(type)>(p); });
}

void mask_from_bool_cpu(const MaskBoolParams& p) {
  for_row_pieces(p.num_rows, p.mask_words, [&](int64_t row, int64_t begin, int64_t end) {
    const uint8_t* bools = p.allowed + row * p.vocab_size;
    uint32_t* words = p.words + row * p.mask_words;
    const int64_t whole = std::min(end, p.vocab_size / 32);
    for (int64_t w = begin; w < whole; ++w) words[w] = pack(bools + w * 32);
    if (whole < end) words[whole] = word_of_bools(p, row, whole);
  });
}

void mask_to_bool_cpu(const MaskBoolParams& p) {
  for_row_pieces(p.num_rows, p.mask_words, [&](int64_t row, int64_t begin, int64_t end) {
    uint8_t* bools = p.allowed + row * p.vocab_size;
    const uint32_t* words = p.words + row * p.mask_words;
    const int64_t whole = std::min(end, p.vocab_size / 32);
    for (int64_t w = begin; w < whole; ++w) unpack(words[w], bools + w * 32);
    if (whole < end)
      for (int64_t j = whole * 32; j < p.vocab_size; ++j) bools[j] = words[whole] >> j % 32 & 1;
  });
}

void mask_combine_cpu(const MaskCombineParams& p) {
  parallel_for(0, p.num_words, 4 * kGrainWords, [&](int64_t begin, int64_t end) {
    if (p.is_or)
      for (int64_t i = begin; i < end; ++i) p.words[i] |= p.other[i];
    else
      for (int64_t i = begin; i < end; ++i) p.words[i] &= p.other[i];
  });
}

void mask_popcount_cpu(const MaskCountParams& p) {
  const int64_t whole = p.vocab_size / 64;  // pairs of words that count as they are
  parallel_for(0, p.num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint32_t* words = p.words + row * p.mask_words;
      int64_t count = 0;
      for (int64_t i = 0; i < whole; ++i) {
        uint64_t pair;
        memcpy(&pair, words + 2 * i, sizeof pair);
        count += std::popcount(pair);
      }
      for (int64_t w = 2 * whole; w < p.mask_words; ++w)
        count += std::popcount(word_below(words[w], w, p.vocab_size));
      p.count[row] = static_cast<int32_t>(count);
    }
  });
}
}  // namespace lmx::vocab::LMX_ISA
