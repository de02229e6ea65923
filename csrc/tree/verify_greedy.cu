// csrc/tree/verify_greedy.cu: CUDA side of verify_greedy.h. One block per sequence brings the tree
// into shared memory; one thread walks. Bound by latency: a few microseconds.
#include "verify_greedy.h"
#include "walk.cuh"

namespace lmx::tree {
namespace {
constexpr int kThreads = 128;

struct GreedyShared {
  SharedTree tree;
  int64_t target[kMaxNodes];
};

__global__ void __launch_bounds__(kThreads) verify_greedy_kernel(VerifyGreedyParams p) {
  auto& s = shared_memory<GreedyShared>();
  const int64_t seq = blockIdx.x;
  const Span span = span_of(p.walk.trees, seq);
  const TreeView tree = load_tree<kThreads>(p.walk, span, s.tree);
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads)
    s.target[i] = p.target_ids[span.begin + i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  clear_walk(p.walk, seq);
  int32_t bits = span.bits;
  if (span.size > 0) bits |= greedy_walk(p.walk, seq, tree, s.target);
  finish_walk(p.walk, seq, bits);
}
}  // namespace

void verify_greedy_cuda(const VerifyGreedyParams& p, cudaStream_t stream) {
  if (p.walk.trees.num_seqs == 0) return;
  launch(verify_greedy_kernel, p.walk.trees.num_seqs, kThreads, sizeof(GreedyShared), stream, p);
}
}  // namespace lmx::tree
