// csrc/vocab/rows_cpu.h: how CPU kernels walk a row. Include it only from kernel files.
#pragma once
#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "../common/parallel.h"
#include "../common/tree_sum.h"
#include "../common/vec.h"
#include "rows.h"

namespace lmx::vocab::LMX_ISA {
using namespace lmx::LMX_ISA;

// "name[row] = got, expected ...", for the first value of the row that is out of range; "" if none
// is.
inline std::string complaint(const Rows& r, const Shaping& s, int64_t row) {
  const auto say = [row](const char* name, auto got, const std::string& expected) {
    return std::string("expected ") + name + "[" + std::to_string(row) + "] in " + expected +
           ", got " + std::to_string(got);
  };
  if (row_status(r, row))
    return say("mask_ids", r.mask_ids[row], "[-1, " + std::to_string(r.num_masks) + ")");
  if (s.temperature && !(s.temperature[row] >= 0.f && s.temperature[row] < INFINITY))
    return say("temperature", s.temperature[row], "[0, inf)");
  if (s.top_k && s.top_k[row] < 0) return say("top_k", s.top_k[row], "[0, 2^31)");
  if (s.top_p && !(s.top_p[row] > 0.f && s.top_p[row] <= 1.f))
    return say("top_p", s.top_p[row], "(0, 1]");
  if (s.min_p && !(s.min_p[row] >= 0.f && s.min_p[row] <= 1.f))
    return say("min_p", s.min_p[row], "[0, 1]");
  return "";
}

// check(row) gives a row's status bits. With a status tensor they are set there; without one a bad
// row is an exception, which say(row) words.
template <typename Check, typename Say>
void check_rows(const char* op, int64_t num_rows, int32_t* status, const Check& check,
                const Say& say) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const int32_t bits = check(row);
    if (bits && !status) throw std::invalid_argument(std::string("lmx::") + op + ": " + say(row));
    if (bits) status[row] |= bits;
  }
}

template <typename T>
struct RowView {
  const T* x;
  const uint32_t* mask;  // null: all allowed
  const Rows* rows;

  RowView(const Rows& r, int64_t row)
      : x(static_cast<const T*>(r.logits) + row * r.row_stride), mask(row_mask(r, row)), rows(&r) {}
  int64_t num_blocks() const { return ceil_div<int64_t>(rows->vocab_size, kDrawBlock); }
};

// The logits of a whole block of a masked row, -inf where a token is not allowed; null: none is.
// Every line of a block with some token is read: skipping single words of 0 defeats the prefetcher,
// and at one allowed token in a hundred took twice as long.
template <typename T>
const float* load_masked(const RowView<T>& row, int64_t b, float* buffer) {
  constexpr int kWords = kDrawBlock / 32;
  uint32_t word[kWords], some = 0, all = ~0u;
  for (int i = 0; i < kWords; ++i) {
    word[i] = mask_word(*row.rows, row.mask, b * kWords + i);
    some |= word[i], all &= word[i];
  }
  const T* x = row.x + b * kDrawBlock;
  if (some == 0) return nullptr;
  if constexpr (std::is_same_v<T, float>)
    if (all == ~0u) return x;
  for (int i = 0; i < kDrawBlock; i += 32)
    for (int j = 0; j < 32; j += kLanes)
      store(buffer + i + j, select(word[i / 32] >> j, load(x + i + j), Vec(-INFINITY)));
  return buffer;
}

// The logits of block b; -inf where a token is not allowed or past the end; null: none is allowed.
// `buffer` holds them unless the row itself does.
template <typename T>
const float* load_block(const RowView<T>& row, int64_t b, float* buffer) {
  const int64_t first = b * kDrawBlock;
  const int64_t n = std::min<int64_t>(kDrawBlock, row.rows->vocab_size - first);
  const T* x = row.x + first;
  if (n < kDrawBlock) {
    for (int i = 0; i < kDrawBlock; ++i) {
      const bool allowed = i < n && mask_word(*row.rows, row.mask, (first + i) / 32) >> i % 32 & 1;
      buffer[i] = allowed ? to_float(x[i]) : -INFINITY;
    }
    return buffer;
  }
  if (row.mask) return load_masked(row, b, buffer);
  if constexpr (std::is_same_v<T, float>) return x;
  for (int i = 0; i < kDrawBlock; i += kLanes) store(buffer + i, load(x + i));
  return buffer;
}

// The largest of 256 floats, or NaN if there is one.
inline float block_max(const float* x) {
  Vec top[4] = {load(x), load(x + kLanes), load(x + 2 * kLanes), load(x + 3 * kLanes)};
  uint32_t nan = is_nan(top[0]) | is_nan(top[1]) | is_nan(top[2]) | is_nan(top[3]);
  for (int i = 4 * kLanes; i < kDrawBlock; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) {
      const Vec v = load(x + i + j * kLanes);
      top[j] = max(top[j], v);
      nan |= is_nan(v);
    }
  if (nan) return NAN;
  return fold(max(max(top[0], top[1]), max(top[2], top[3])),
              [](float a, float b) { return a > b ? a : b; });
}

struct BlockSum {
  float top, sum;
};

// The weights of 256 logits, whose largest is given, relative to their own top, and their sum.
inline BlockSum weigh(const float* x, float largest, float scale, float* weights) {
  alignas(64) float capped[kDrawBlock];
  const float top = exact::weight_top(largest, scale);
  if (!(top > -INFINITY)) {
    std::fill_n(weights, kDrawBlock, top != top ? top : 0.f);
    return {top, weights[0]};
  }
  if (exact::needs_cap(largest, scale)) {
    for (int i = 0; i < kDrawBlock; ++i) capped[i] = exact::cap_logit(x[i], scale);
    x = capped;
  }
  const Vec scales(scale), tops(top);
  for (int i = 0; i < kDrawBlock; i += kLanes)
    store(weights + i, exact::weight(load(x + i), scales, tops));
  return {top, tree_sum(weights)};
}

// The weights of block b into `weights` [256].
template <typename T>
BlockSum block_weights(const RowView<T>& row, int64_t b, float scale, float* weights) {
  alignas(64) float buffer[kDrawBlock];
  const float* x = load_block(row, b, buffer);
  return weigh(x, x ? block_max(x) : -INFINITY, scale, weights);
}

// The total of a row from its blocks' sums.
inline RowTotal row_total(const float* top, const float* sum, int64_t num_blocks) {
  RowTotal t{-INFINITY, 0.0};
  for (int64_t b = 0; b < num_blocks; ++b) {
    if (top[b] != top[b]) return {NAN, NAN};
    t.top = std::max(t.top, top[b]);
  }
  if (t.top == -INFINITY) return t;
  for (int64_t g = 0; g * kDrawChunk < num_blocks; ++g)
    t.total += chunk_value(top, sum, num_blocks, g, t.top);
  return t;
}

// Runs body(row, each_chunk) for every row. Many rows: a row stays on one thread, and in its cache.
// One row: each_chunk(f) spreads f(chunk) over the threads. The bits do not depend on which.
template <typename Body>
void for_rows(int64_t num_rows, int64_t num_chunks, const Body& body) {
  constexpr int64_t kGrainChunks = 4;  // about 20 microseconds
  if (num_rows == 1)
    return body(0, [&](const auto& f) {
      parallel_for(0, num_chunks, kGrainChunks, [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g) f(g);
      });
    });
  parallel_for(0, num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      body(row, [&](const auto& f) {
        for (int64_t g = 0; g < num_chunks; ++g) f(g);
      });
  });
}

// Fills a row's blocks and gives its total.
template <typename T>
RowTotal blocks_total(const RowView<T>& row, const Blocks& blocks, int64_t r, float scale,
                      const auto& each_chunk) {
  float* top = blocks.top + r * blocks.num_blocks;
  float* sum = blocks.sum + r * blocks.num_blocks;
  each_chunk([&](int64_t g) {
    alignas(64) float weights[kDrawBlock];
    const int64_t end = std::min((g + 1) * kDrawChunk, blocks.num_blocks);
    for (int64_t b = g * kDrawChunk; b < end; ++b) {
      const BlockSum s = block_weights(row, b, scale, weights);
      top[b] = s.top, sum[b] = s.sum;
    }
  });
  return row_total(top, sum, blocks.num_blocks);
}
}  // namespace lmx::vocab::LMX_ISA
