// csrc/vocab/softmax.cpp: CPU side of softmax.h. Two passes: weights into `probs` relative to each
// block's top, then one multiplication each. An exponential is taken once, and the second pass
// finds the row in cache.
#include "softmax.h"

#include "truncate_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
template <typename T>
void dense_row(const SoftmaxParams& p, int64_t r, const auto& each_chunk) {
  const RowView<T> row(p.rows, r);
  const float scale = row_scale(p.shaping, r);
  float* top = p.blocks.top + r * p.blocks.num_blocks;
  float* sum = p.blocks.sum + r * p.blocks.num_blocks;
  float* probs = p.probs + r * p.rows.vocab_size;
  const auto each_block = [&](const auto& f) {  // f(block, first, number of tokens)
    each_chunk([&](int64_t g) {
      const int64_t end = std::min((g + 1) * kDrawChunk, p.blocks.num_blocks);
      for (int64_t b = g * kDrawChunk; b < end; ++b)
        f(b, b * kDrawBlock, std::min<int64_t>(kDrawBlock, p.rows.vocab_size - b * kDrawBlock));
    });
  };
  each_block([&](int64_t b, int64_t first, int64_t n) {
    alignas(64) float tail[kDrawBlock];
    const BlockSum s = block_weights(row, b, scale, n == kDrawBlock ? probs + first : tail);
    if (n < kDrawBlock) std::copy_n(tail, n, probs + first);
    top[b] = s.top, sum[b] = s.sum;
  });
  const RowTotal total = row_total(top, sum, p.blocks.num_blocks);
  if (total.top != total.top) {
    std::fill_n(probs, p.rows.vocab_size, NAN);
  } else if (total.top > -INFINITY) {  // else all weights are 0 already
    each_block([&](int64_t b, int64_t first, int64_t n) {
      const float factor = probability_factor(top[b], total);
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes)
        store(probs + first + i, load(probs + first + i) * Vec(factor));
      for (; i < n; ++i) probs[first + i] *= factor;
    });
  }
}

template <typename T>
void truncated_row(const SoftmaxParams& p, int64_t r, const auto& each_chunk,
                   std::vector<Candidate>& kept) {
  const RowView<T> row(p.rows, r);
  const float scale = row_scale(p.shaping, r);
  float* probs = p.probs + r * p.rows.vocab_size;
  const bool ok = kept_tokens(
      row, p.shaping, r, p.blocks,
      [&] { return blocks_total(row, p.blocks, r, scale, each_chunk); }, kept);
  std::fill_n(probs, p.rows.vocab_size, ok ? 0.f : NAN);
  if (!ok || kept.empty()) return;
  if (is_greedy(p.shaping, r)) {
    probs[kept[0].id] = 1.f;
    return;
  }
  const RowTotal total = kept_total(p.blocks, r, scale, kept);
  if (total.top == -INFINITY) return;
  for_kept_blocks(kept, [&](int64_t, const Candidate* begin, const Candidate* end) {
    float weights[kDrawBlock];
    const BlockSum s = kept_block_weights(begin, end, scale, weights);
    const float factor = probability_factor(s.top, total);
    for (const Candidate* c = begin; c < end; ++c)
      probs[c->id] = weights[c->id % kDrawBlock] * factor;
  });
}

template <typename T>
void softmax_rows(const SoftmaxParams& p) {
  const int64_t num_chunks = ceil_div<int64_t>(p.blocks.num_blocks, kDrawChunk);
  for_rows(p.rows.num_rows, num_chunks, [&](int64_t r, const auto& each_chunk) {
    thread_local std::vector<Candidate> kept;
    if (row_status(p.rows, p.shaping, r))
      std::fill_n(p.probs + r * p.rows.vocab_size, p.rows.vocab_size, 0.f);
    else if (!Limits(p.shaping, r, p.rows.vocab_size).none())
      truncated_row<T>(p, r, each_chunk, kept);
    else
      dense_row<T>(p, r, each_chunk);
  });
}
}  // namespace

void softmax_cpu(const SoftmaxParams& p) {
  check_rows(
      "vocab_softmax", p.rows.num_rows, p.status,
      [&](int64_t row) { return row_status(p.rows, p.shaping, row); },
      [&](int64_t row) { return complaint(p.rows, p.shaping, row); });
  visit_dtype(p.rows.dtype, [&](auto type) { softmax_rows<decltype(type)>(p); });
}
}  // namespace lmx::vocab::LMX_ISA
