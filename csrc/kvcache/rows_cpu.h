// csrc/kvcache/rows_cpu.h: rows between packed tokens and pages, on the CPU. Memory bound: a row is
// read and written once. Include it only from kernel files.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "../common/parallel.h"
#include "layout.h"

namespace lmx::kvcache::LMX_ISA {
constexpr int64_t kLine = 64;             // bytes of a cache line
constexpr int64_t kPieceBytes = 1 << 16;  // the least work of a thread

// Past the caches: a line that is written whole is not read first, and nothing is evicted for it.
// `to` is a multiple of 64, and so is `bytes`. The caller ends with an sfence.
inline void stream_copy(char* to, const char* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kLine) {
    const auto* source = reinterpret_cast<const __m256i*>(from + i);
    auto* line = reinterpret_cast<__m256i*>(to + i);
    const __m256i low = _mm256_loadu_si256(source), high = _mm256_loadu_si256(source + 1);
    _mm256_stream_si256(line, low);
    _mm256_stream_si256(line + 1, high);
  }
}

inline bool whole_lines(const void* p, int64_t a, int64_t b, int64_t c) {
  return (reinterpret_cast<uintptr_t>(p) | static_cast<uintptr_t>(a | b | c)) % kLine == 0;
}

// Through the caches. Rows are short: a call of memcpy would take as long as the copy.
inline void cached_copy(char* to, const char* from, int64_t bytes) {
  constexpr int64_t kVector = sizeof(__m256i);
  int64_t i = 0;
  for (; i + kVector <= bytes; i += kVector)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
  if (i < bytes) std::memcpy(to + i, from + i, bytes - i);
}

// Tokens [begin, end) of layer-major items. P has pool, rows, slot_of and one_slot_for_all_heads.
template <bool kGather, bool kStream, typename P>
void move_items(const P& p, int64_t begin, int64_t end) {
  const Pool& pool = p.pool;
  const bool shared = one_slot_for_all_heads(p);
  const int64_t block = pool.page_size * pool.row_bytes;  // from head to head, within a page
  for (int64_t item = begin; item < end; ++item) {
    const int64_t layer = item / p.rows.num_tokens, token = item % p.rows.num_tokens;
    int64_t slot = -1, at = 0;
    for (int64_t head = 0; head < p.rows.num_heads; ++head, at += block) {
      if (!shared || head == 0) {
        slot = slot_of(p, layer, token, head);
        at = slot < 0 ? 0 : row_at(pool, slot, layer, 0, head);
      }
      for (int kv = 0; kv < 2; ++kv) {
        char* row = row_of(kv == 0 ? p.rows.key : p.rows.value, layer, token, head);
        if (slot < 0) {
          if constexpr (kGather) std::memset(row, 0, pool.row_bytes);
          continue;
        }
        char* page_row = pool.data + at + kv * pool.heads_per_page * block;
        char* to = kGather ? row : page_row;
        const char* from = kGather ? page_row : row;
        if constexpr (kStream)
          stream_copy(to, from, pool.row_bytes);
        else
          cached_copy(to, from, pool.row_bytes);
      }
    }
  }
  if constexpr (kStream) _mm_sfence();
}

// `streams`: what is written is more than the caches hold, and is made of whole lines.
template <bool kGather, typename P>
void move_rows(const P& p, bool streams) {
  const int64_t item_bytes = 2 * p.rows.num_heads * p.pool.row_bytes;
  const int64_t items = p.rows.num_layers * p.rows.num_tokens;
  parallel_for(0, items, kPieceBytes / (item_bytes + 1) + 1, [&](int64_t begin, int64_t end) {
    if (streams)
      move_items<kGather, true>(p, begin, end);
    else
      move_items<kGather, false>(p, begin, end);
  });
}
}  // namespace lmx::kvcache::LMX_ISA
