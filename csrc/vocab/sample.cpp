// csrc/vocab/sample.cpp: CPU side of sample.h.
#include "sample.h"

#include "truncate_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
// Walks down the three levels of draw.h. weights_of(block) gives the 256 weights of a block.
template <typename WeightsOf>
void draw(const SampleParams& p, int64_t r, RowTotal total, const WeightsOf& weights_of) {
  if (!(total.top > -INFINITY)) return;
  const float* top = p.blocks.top + r * p.blocks.num_blocks;
  const float* sum = p.blocks.sum + r * p.blocks.num_blocks;
  const int64_t num_blocks = p.blocks.num_blocks;
  const double target = static_cast<double>(p.uniforms[r]) * total.total;
  const Pick chunk = pick(ceil_div<int>(num_blocks, kDrawChunk), 0.0, target,
                          [&](int g) { return chunk_value(top, sum, num_blocks, g, total.top); });
  const int64_t first = int64_t{chunk.index} * kDrawChunk;
  const Pick in_chunk =
      pick(std::min<int64_t>(kDrawChunk, num_blocks - first), chunk.before, target,
           [&](int b) { return block_value(top[first + b], sum[first + b], total.top); });
  const int64_t block = first + in_chunk.index;
  const float* weights = weights_of(block);
  const Pick token = pick(kDrawBlock, in_chunk.before, target,
                          [&](int i) { return block_value(top[block], weights[i], total.top); });
  p.token[r] = block * kDrawBlock + token.index;
  p.logprob[r] = draw_logprob(block_value(top[block], weights[token.index], total.top), total);
}

template <typename T>
void sample_row(const SampleParams& p, int64_t r, const auto& each_chunk) {
  const RowView<T> row(p.rows, r);
  const float scale = row_scale(p.shaping, r);
  alignas(64) float weights[kDrawBlock];
  const auto dense_total = [&] { return blocks_total(row, p.blocks, r, scale, each_chunk); };
  if (Limits(p.shaping, r, p.rows.vocab_size).none())
    return draw(p, r, dense_total(), [&](int64_t b) {
      block_weights(row, b, scale, weights);
      return weights;
    });
  thread_local std::vector<Candidate> kept;
  if (!kept_tokens(row, p.shaping, r, p.blocks, dense_total, kept) || kept.empty()) return;
  if (is_greedy(p.shaping, r)) {
    p.token[r] = kept[0].id, p.logprob[r] = 0.f;
    return;
  }
  draw(p, r, kept_total(p.blocks, r, scale, kept), [&](int64_t block) {
    for_kept_blocks(kept, [&](int64_t b, const Candidate* begin, const Candidate* end) {
      if (b == block) kept_block_weights(begin, end, scale, weights);
    });
    return weights;
  });
}

std::string sample_complaint(const SampleParams& p, int64_t row) {
  const std::string words = complaint(p.rows, p.shaping, row);
  return words.empty() ? "expected uniforms[" + std::to_string(row) + "] in [0, 1), got " +
                             std::to_string(p.uniforms[row])
                       : words;
}
}  // namespace

void sample_cpu(const SampleParams& p) {
  check_rows(
      "vocab_sample", p.rows.num_rows, p.status, [&](int64_t row) { return sample_status(p, row); },
      [&](int64_t row) { return sample_complaint(p, row); });
  const int64_t num_chunks = ceil_div<int64_t>(p.blocks.num_blocks, kDrawChunk);
  visit_dtype(p.rows.dtype, [&](auto type) {
    for_rows(p.rows.num_rows, num_chunks, [&](int64_t r, const auto& each_chunk) {
      p.token[r] = -1, p.logprob[r] = NAN;
      if (!sample_status(p, r)) sample_row<decltype(type)>(p, r, each_chunk);
    });
  });
}
}  // namespace lmx::vocab::LMX_ISA
