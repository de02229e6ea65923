// csrc/attention/paged.cu: CUDA side of paged.h. Three kernels: sequences are checked, attend.cuh
// sums over tiles of rows, and where each chunk of keys had its own block the chunks are added.
#include <type_traits>

#include "attend.cuh"

namespace lmx::attention {
namespace {
// ---- launch parameters -----------------------------------------------------------------------
constexpr int kCheckThreads = 256;
constexpr int kAddThreads = 128;
constexpr int kBatch = 8;  // chunks whose loads are under way together

// ---- kernels ---------------------------------------------------------------------------------
// One sequence: its flag in the workspace, its status, and the rows of one that counts as empty.
__global__ void __launch_bounds__(kCheckThreads) check_kernel(PagedParams p) {
  const int64_t b = blockIdx.x;
  const Sequence s = sequence_of(p, b);
  int32_t faults = count_faults(p, s, b);
  const int64_t entries = faults ? 0 : num_entries(p, s);
  bool bad = false;
  for (int64_t i = threadIdx.x; i < entries; i += kCheckThreads)
    bad |= bad_page(p, b, i) || bad_pos_page(p, b, i);
  if (__syncthreads_or(bad)) faults |= kStatusBadPage;
  if (threadIdx.x == 0) {
    reinterpret_cast<int32_t*>(p.space)[b] = !faults;
    if (p.status && faults) p.status[b] |= faults;
  }
  if (!faults || !has_rows(p, s, b)) return;
  const int64_t first = s.first_q * p.num_heads, heads = s.num_q * p.num_heads;
  const int64_t bytes = p.head_dim * (p.dtype == DType::f32 ? 4 : 2);  // a multiple of 16
  auto* out = reinterpret_cast<uint4*>(static_cast<char*>(p.out) + first * bytes);
  for (int64_t i = threadIdx.x; i < heads * bytes / 16; i += kCheckThreads) out[i] = {};
  for (int64_t i = threadIdx.x; i < heads; i += kCheckThreads) p.lse[first + i] = -INFINITY;
}

// A row of a head: its chunks, one after the other, a column a thread.
template <typename T>
__global__ void __launch_bounds__(kAddThreads)
    add_kernel(PagedParams p, Split split, int64_t rows_per_seq) {
  const int64_t group = p.num_heads / p.num_kv_heads;
  const int64_t b = blockIdx.x / (p.num_heads * rows_per_seq);
  const int64_t i = blockIdx.x / p.num_heads % rows_per_seq, head = blockIdx.x % p.num_heads;
  const Sequence s = sequence_of(p, b);
  if (!valid_of(p)[b] || i >= s.num_q) return;
  const int64_t row = i * group + head % group, tile = row / split.tile_rows;
  const int r = static_cast<int>(row % split.tile_rows);
  const int64_t end = (tile + 1) * split.tile_rows, rows = s.num_q * group;
  const int64_t chunks = chunks_of(keys_of(p, s, ((end < rows ? end : rows) - 1) / group)).count;
  const float* first =
      p.space + sums_offset(p) + split.place(b, head / group, tile, 0) * split.unit_floats();
  const int64_t rest = int64_t{split.tile_rows} * split.width + 2 * r;
  const int64_t at = (s.first_q + i) * p.num_heads + head;
  for (int column = threadIdx.x; column < p.head_dim; column += kAddThreads) {
    float top = -INFINITY, weight = 0.f, value = 0.f;
    for (int64_t c = 0; c < chunks; c += kBatch) {
      float more_value[kBatch], more_top[kBatch], more_weight[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const float* sums = first + (c + j < chunks ? c + j : c) * split.unit_floats();
        more_value[j] = sums[r * split.width + column];
        more_top[j] = sums[rest], more_weight[j] = sums[rest + 1];
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (c + j >= chunks) continue;
        const Rescale x = rescale(top, more_top[j]);
        top = x.top;
        weight = weight * x.a + more_weight[j] * x.b;
        value = value * x.a + more_value[j] * x.b;
      }
    }
    const Finish f = finish(top, weight);
    static_cast<T*>(p.out)[at * p.head_dim + column] = static_cast<T>(value * f.scale);
    if (column == 0) p.lse[at] = f.lse;
  }
}
}  // namespace

// ---- dispatch --------------------------------------------------------------------------------
void paged_cuda(const PagedParams& p, cudaStream_t stream) {
  if (p.num_seqs == 0) return;
  launch(check_kernel, p.num_seqs, kCheckThreads, 0, stream, p);
  const Split split = split_of(p);
  if (split.num_units() == 0) return;
  switch (p.dtype) {
    case DType::f32: attend_f32(p, split, stream); break;
    case DType::f16: attend_f16(p, split, stream); break;
    case DType::bf16: attend_bf16(p, split, stream); break;
  }
  if (!split.by_chunk) return;
  const int64_t rows = p.max_q < p.num_q ? p.max_q : p.num_q;
  visit_cuda_dtype(p.dtype, [&](auto type) {
    launch(add_kernel<decltype(type)>, p.num_seqs * rows * p.num_heads, kAddThreads, 0, stream, p,
           split, rows);
  });
}
}  // namespace lmx::attention
