// csrc/tree/recycle_update.cpp: CPU side of recycle_update.h. Memory bound: one read of the logits
// of the rows that write. A lane passes only if it beats the k-th best so far, so after the first
// blocks a row is a stream of comparisons.
#include "recycle_update.h"

#include <algorithm>
#include <bit>

#include "../common/vec.h"
#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
namespace {
using namespace lmx::LMX_ISA;
constexpr auto kOp = "tree_recycle_update";
constexpr int kStep = 4 * kLanes;

template <int kCapacity>
void scan(const float* x, int64_t n, Largest<kCapacity>& best) {
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const Vec least(best.least());
    uint64_t some = 0;
    for (int j = 0; j < 4; ++j)
      some |= uint64_t{above(load(x + i + j * kLanes), least)} << j * kLanes;
    for (; some != 0; some &= some - 1) {
      const int lane = std::countr_zero(some);
      best.offer(x[i + lane], static_cast<int32_t>(i + lane));
    }
  }
  for (; i < n; ++i) best.offer(x[i], static_cast<int32_t>(i));
}

// Says which matrix each row of a sequence writes to.
void claim(const RecycleUpdateParams& p, int64_t seq) {
  const Span span = checked_span(p.trees, seq, kOp);
  if (span.size == 0) return;
  int32_t bits = is_good_matrix(p, seq) ? 0 : kStatusBadValue;
  report(p.trees, seq, bits, kOp, [&] {
    return "a matrix id in [0, " + std::to_string(p.num_matrices) + "), got " +
           std::to_string(matrix_of(p, seq));
  });
  for (int32_t i = 0; i < span.size; ++i) {
    const int64_t token = p.tokens[span.begin + i];
    const int32_t mine = is_token(p, token) ? 0 : kStatusBadToken;
    report(p.trees, seq, mine, kOp, [&] {
      return "a token in [0, " + std::to_string(p.vocab_size) + ")" +
             got("tokens", span.begin + i, token);
    });
    bits |= mine;
  }
  for (int32_t i = 0; !bits && i < span.size; ++i) {
    p.owner[span.begin + i] = static_cast<int32_t>(matrix_of(p, seq));
    p.weight[span.begin + i] = weight_of(p, seq, span, i);
  }
}

bool writes(const RecycleUpdateParams& p, int64_t row) {
  if (p.owner[row] < 0) return false;
  for (int64_t other = 0; other < p.trees.num_rows; ++other)
    if (loses(p, row, other)) return false;
  return true;
}

template <int kCapacity>
void update_rows(const RecycleUpdateParams& p) {
  parallel_for(0, p.trees.num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (!writes(p, row)) continue;
      Largest<kCapacity> best;
      best.clear();
      scan(p.logits + row * p.vocab_size, p.vocab_size, best);
      std::copy_n(best.id, p.k, p.matrix + (p.owner[row] * p.vocab_size + p.tokens[row]) * p.k);
    }
  });
}
}  // namespace

void recycle_update_cpu(const RecycleUpdateParams& p) {
  std::fill_n(p.owner, p.trees.num_rows, -1);
  for (int64_t seq = 0; seq < p.trees.num_seqs; ++seq) claim(p, seq);
  if (p.k <= 8)
    update_rows<8>(p);
  else
    update_rows<kMaxCandidates>(p);
}
}  // namespace lmx::tree::LMX_ISA
