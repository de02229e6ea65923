// csrc/ngram/next_rows.cu: CUDA side of ntd_dense and ntd_topk of next.h, whose results have a
// fixed shape.
#include "next.cuh"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = kNextThreads;
// ---- ntd_dense ----------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) clear_kernel(NtdDenseParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.next.num_queries * p.next.index.vocab_size) p.probs[i] = 0.f;
}

template <typename Order>
__global__ void __launch_bounds__(kThreads, kNextBlocks) dense_kernel(NtdDenseParams p) {
  const int64_t q = blockIdx.x, vocab_size = p.next.index.vocab_size;
  float* row = p.probs + q * vocab_size;
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  const auto put = [&](int64_t token, int64_t count) {
    if (is_token(token, vocab_size))
      row[token] =
          static_cast<float>(static_cast<double>(count) / static_cast<double>(support.den));
  };
  for (int64_t s = 0; s < p.next.index.num_shards; ++s)
    walk_part<Order>(p.next, q, s, support.unit, bits, put);
  if (threadIdx.x == 0) {
    const int64_t end = end_count<Order>(p.next, q, support.unit, bits);
    if (end > 0) put(p.next.index.eos_id, end);
  }
  set_bits(p.next.status, q, bits);
}

// ---- ntd_topk: every thread keeps the best of its part; the winner's looks for its next -------
struct Best {
  int64_t num, tok;
  int64_t thread;
};
struct Larger {
  __device__ Best operator()(Best a, Best b) const {
    const bool b_wins =
        b.num > a.num ||
        (b.num == a.num && (b.tok < a.tok || (b.tok == a.tok && b.thread < a.thread)));
    return b_wins ? b : a;
  }
};
struct BestShared {
  Best best[kThreads / kWarpSize];
};

// The thread's best behind `last`, in the order of count, then token.
template <typename Order>
__device__ __forceinline__ Best best_behind(const NextParams& p, int64_t q, int64_t unit,
                                            int64_t end, Best last, int32_t& bits) {
  Best best{0, INT64_MAX, threadIdx.x};
  const auto take = [&](int64_t token, int64_t count) {
    const bool behind = count < last.num || (count == last.num && token > last.tok);
    if (behind && (count > best.num || (count == best.num && token < best.tok)))
      best.num = count, best.tok = token;
  };
  for (int64_t s = 0; s < p.index.num_shards; ++s) walk_part<Order>(p, q, s, unit, bits, take);
  if (threadIdx.x == 0 && end > 0) take(p.index.eos_id, end);
  return best;
}

template <typename Order>
__global__ void __launch_bounds__(kThreads, 3) topk_kernel(NtdTopkParams p) {
  auto& shared = shared_memory<BestShared>();
  const int64_t q = blockIdx.x;
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  const int64_t end = threadIdx.x == 0 ? end_count<Order>(p.next, q, support.unit, bits) : 0;
  Best mine{0, INT64_MAX, threadIdx.x}, last{INT64_MAX, -1, threadIdx.x};
  for (int64_t i = 0; i < p.k; ++i) {
    if (last.num > 0 && last.thread == threadIdx.x)
      mine = best_behind<Order>(p.next, q, support.unit, end, last, bits);
    last = block_reduce<kThreads>(mine, Larger{}, shared.best);
    if (threadIdx.x == 0) {
      p.tok[q * p.k + i] = last.num > 0 ? last.tok : -1;
      p.num[q * p.k + i] = last.num;
    }
  }
  set_bits(p.next.status, q, bits);
}
}  // namespace
// ---- launchers: 6 orders x 2 --------------------------------------------------------------
void ntd_dense_cuda(const NtdDenseParams& p, cudaStream_t stream) {
  const int64_t cells = p.next.num_queries * p.next.index.vocab_size;
  if (cells == 0) return;
  launch(clear_kernel, ceil_div<int64_t>(cells, kThreads), kThreads, 0, stream, p);
  visit_order(p.next.index, [&](auto order) {
    launch(dense_kernel<decltype(order)>, p.next.num_queries, kThreads, 0, stream, p);
  });
}

void ntd_topk_cuda(const NtdTopkParams& p, cudaStream_t stream) {
  if (p.next.num_queries == 0) return;
  visit_order(p.next.index, [&](auto order) {
    launch(topk_kernel<decltype(order)>, p.next.num_queries, kThreads, sizeof(BestShared), stream,
           p);
  });
}
}  // namespace lmx::ngram
