// csrc/tree/commit.cu: CUDA side of commit.h. One launch for -1 everywhere, then one block per
// sequence: all entries are checked before one is written. Bound by latency: microseconds.
#include "../common/launch.h"
#include "commit.h"

namespace lmx::tree {
namespace {
constexpr int kThreads = 128;

struct CommitShared {
  int32_t bits;
};

__global__ void __launch_bounds__(kThreads) commit_fill_kernel(CommitParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.table_rows * p.trees.num_rows) p.slot_mapping[i] = -1;
}

__global__ void __launch_bounds__(kThreads) commit_kernel(CommitParams p) {
  auto& s = shared_memory<CommitShared>();
  const int64_t seq = blockIdx.x;
  const Span span = span_of(p.trees, seq);
  const int64_t count = num_committed(p, seq, span);
  const bool is_good = is_good_count(p, count);
  const int64_t entries = is_good ? p.table_rows * count : 0;
  if (threadIdx.x == 0) s.bits = span.bits | (is_good ? 0 : kStatusBadValue);
  __syncthreads();
  int32_t mine = 0;
  for (int64_t i = threadIdx.x; i < entries; i += kThreads)
    mine |= entry_status(p, seq, span, i / count, i % count);
  if (mine) atomicOr(&s.bits, mine);
  __syncthreads();
  const int32_t bits = s.bits;
  if (threadIdx.x == 0 && bits && p.trees.status) p.trees.status[seq] |= bits;
  for (int64_t i = threadIdx.x; !bits && i < entries; i += kThreads) {
    const int64_t r = i / count, j = i % count;
    p.slot_mapping[r * p.trees.num_rows + span.begin + p.path[seq * p.width + j]] =
        slot_of(p, seq, r, j).index;
  }
}
}  // namespace

void commit_cuda(const CommitParams& p, cudaStream_t stream) {
  const int64_t slots = p.table_rows * p.trees.num_rows;
  if (slots > 0)
    launch(commit_fill_kernel, ceil_div<int64_t>(slots, kThreads), kThreads, 0, stream, p);
  if (p.trees.num_seqs > 0)
    launch(commit_kernel, p.trees.num_seqs, kThreads, sizeof(CommitShared), stream, p);
}
}  // namespace lmx::tree
