// csrc/ngram/mix.cu: CUDA side of mix.h. A block per row: the total of its counts, then every
// token, then those with a count. Memory bound: reads the logits, writes as many floats.
#include "mix.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "index.cuh"

namespace lmx::ngram {
namespace {
constexpr int kThreads = 256;
struct MixShared {
  int64_t total[kThreads / kWarpSize];
  int32_t bad[kThreads / kWarpSize];
};

// mix_row of mix.h, by the block.
__device__ MixRow block_mix_row(const MixParams& p, int64_t row, MixShared& shared) {
  MixRow r{0, 0, 0.0, 0.0, 0};
  const Span span = span_at(p.crow, row, p.num_entries);
  const int64_t size = span.size < 0 ? 0 : span.size;
  r.begin = span.begin, r.end = span.begin + size;
  int64_t mine = 0;
  int32_t bad = 0;
  for (int64_t i = r.begin + threadIdx.x; i < r.end; i += kThreads) {
    bad |= p.num[i] < 0;
    if (is_token(p.tok[i], p.vocab_size) && p.num[i] > 0) mine += p.num[i];
  }
  const int64_t total = block_reduce<kThreads>(mine, Sum{}, shared.total);
  bad = block_reduce<kThreads>(bad, Max{}, shared.bad);
  r.bits = span.size < 0 ? kStatusBadOffsets : bad ? kStatusBadValue : 0;
  const bool is_short = p.suffix_len && p.suffix_len[row] < p.min_suffix_len;
  r.total = static_cast<double>(total);
  if (total > 0 && !is_short && !r.bits) r.lambda = size == 1 ? p.lam_sparse : p.lam_dense;
  return r;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) mix_kernel(MixParams p) {
  auto& shared = shared_memory<MixShared>();
  const int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.logits) + row * p.row_stride;
  float* out = p.out + row * p.vocab_size;
  const MixRow r = block_mix_row(p, row, shared);
  const double rest = mix_rest(r.lambda);
  const float lse = p.lse[row];
  for (int64_t y = threadIdx.x; y < p.vocab_size; y += kThreads)
    out[y] = mix_base(static_cast<float>(logits[y]), lse, r, rest);
  __syncthreads();  // an entry is written after the token's base
  for (int64_t i = r.begin + threadIdx.x; i < r.end && r.lambda > 0.0; i += kThreads)
    if (is_token(p.tok[i], p.vocab_size) && p.num[i] > 0)
      out[p.tok[i]] = mix_entry(static_cast<float>(logits[p.tok[i]]), lse, p.num[i], r, rest);
  if (threadIdx.x == 0) set_bits(p.status, row, r.bits);
}
}  // namespace
// ---- launcher: 3 dtypes -------------------------------------------------------------------
void mix_cuda(const MixParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return;
  const auto go = [&](auto kernel) {
    launch(kernel, p.num_rows, kThreads, sizeof(MixShared), stream, p);
  };
  switch (p.dtype) {
    case DType::f32: return go(mix_kernel<float>);
    case DType::f16: return go(mix_kernel<__half>);
    case DType::bf16: return go(mix_kernel<__nv_bfloat16>);
  }
}
}  // namespace lmx::ngram
