// csrc/vocab/mask.cpp: CPU side of mask.h. Memory bound; a mask word of ones costs applying
// nothing, a word of zeros no load.
#include "mask.h"

#include <bit>

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
constexpr int64_t kGrainWords = 2048;

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
  const int64_t words = ceil_div<int64_t>(r.vocab_size, 32);
  parallel_for(0, r.num_rows * words, kGrainWords, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / words, w = i % words;
      if (row_status(r, row)) continue;
      T* x = static_cast<T*>(const_cast<void*>(r.logits)) + row * r.row_stride + w * 32;
      const uint32_t allowed = mask_word(r, row_mask(r, row), w);
      const int64_t n = std::min<int64_t>(32, r.vocab_size - w * 32);
      if (n == 32)
        apply_word(x, allowed);
      else
        for (int64_t j = 0; j < n; ++j)
          if (!(allowed >> j & 1)) x[j] = from_float<T>(-INFINITY);
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

// Calls f(row, word index, the row's bools at that word, how many there are).
template <typename F>
void for_words(const MaskBoolParams& p, const F& f) {
  parallel_for(0, p.num_rows * p.mask_words, kGrainWords, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / p.mask_words, w = i % p.mask_words;
      f(row, w, p.allowed + row * p.vocab_size + w * 32,
        std::min<int64_t>(32, p.vocab_size - w * 32));
    }
  });
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
  for_words(p, [&](int64_t row, int64_t w, const uint8_t* bools, int64_t n) {
    p.words[row * p.mask_words + w] = n == 32 ? pack(bools) : word_of_bools(p, row, w);
  });
}

void mask_to_bool_cpu(const MaskBoolParams& p) {
  for_words(p, [&](int64_t row, int64_t w, uint8_t* bools, int64_t n) {
    const uint32_t word = p.words[row * p.mask_words + w];
    if (n == 32)
      unpack(word, bools);
    else
      for (int64_t j = 0; j < n; ++j) bools[j] = word >> j & 1;
  });
}

void mask_combine_cpu(const MaskCombineParams& p) {
  parallel_for(0, p.num_words, 16 * kGrainWords, [&](int64_t begin, int64_t end) {
    if (p.is_or)
      for (int64_t i = begin; i < end; ++i) p.words[i] |= p.other[i];
    else
      for (int64_t i = begin; i < end; ++i) p.words[i] &= p.other[i];
  });
}

void mask_popcount_cpu(const MaskCountParams& p) {
  parallel_for(0, p.num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint32_t* words = p.words + row * p.mask_words;
      int64_t count = 0;
      for (int64_t w = 0; w < p.mask_words; ++w)
        count += std::popcount(word_below(words[w], w, p.vocab_size));
      p.count[row] = static_cast<int32_t>(count);
    }
  });
}
}  // namespace lmx::vocab::LMX_ISA
