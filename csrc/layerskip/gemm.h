// csrc/layerskip/gemm.h: the library's GEMM; every row brings the weight group it wants, or none.
//   acc[r, n] = sum over k of x[r, k] W[group[r], n, k]
//   out[r, n] = residual[r, n] + row_scale[r] act(acc[r, n] + bias[group[r], n])   group[r] >= 0
//             = residual[r, n], +0 or what it was                                 group[r] = -1
// Sums and all that follows are float32, rounded once. A row's bits depend on its own inputs alone:
// not on the other rows, their groups, their number, the order of rows or the number of threads.
// Weights of groups without rows, and rows without a group, are not read.
// Source: layer-skip batching as in SkipDecode, arXiv 2307.02628; the grouped form is this
// library's.
#pragma once
#include "../common/isa.h"
#include "activation.h"
#include "weights.h"

namespace lmx::layerskip {
enum class Skipped : int { zero, residual, keep };

struct GemmParams {
  Matrix x;  // [num_rows, k]
  Weights weights;
  Plan plan;
  int64_t num_rows;
  const void* bias;        // [num_groups, n], bias_dtype, or null
  Matrix residual;         // [num_rows, n] or null; may be out
  const float* row_scale;  // [num_rows] or null
  Matrix out;              // [num_rows, n]
  DType bias_dtype;
  Activation activation;
  Skipped skipped;
  float* partial;   // CUDA workspace of partial_floats(...), or null
  int32_t* status;  // [num_rows] or null
};

// On CUDA a sum over k is cut into this many pieces, whose sums are added in order: enough work for
// every multiprocessor where one group has rows. A function of the weights' shape alone, so that
// the bits are; a row gets the same pieces whether one block of threads sums them or several.
LMX_HD int64_t num_splits(int64_t n, int64_t k) {
  constexpr int64_t kItems = 264, kRows = 64, kLeast = 256;  // two per multiprocessor of an H200
  const int64_t items = ceil_div(n > 0 ? n : 1, kRows);
  const int64_t wanted = ceil_div(kItems, items), most = k / kLeast;
  const int64_t splits = wanted < most ? wanted : most;
  return splits > 1 ? splits : 1;
}
// Calls of up to this many rows have the pieces summed by several blocks, through memory.
constexpr int64_t kMaxSplitRows = 64;
// The most rows of a tile that one block of threads takes at once; what plans are best made for.
constexpr int64_t kTileRows = 128;
LMX_HD int64_t partial_floats(int64_t num_rows, int64_t n, int64_t k) {
  const int64_t splits = num_splits(n, k);
  return splits > 1 && num_rows <= kMaxSplitRows ? splits * num_rows * n : 0;
}

// out[r, n] from its parts; absent ones are 0, 1 and 0.
LMX_HD float finish(float acc_and_bias, float row_scale, float residual) {
  return residual + row_scale * acc_and_bias;
}

LMX_CPU_KERNEL_AMX(gemm_cpu, GemmParams)
void gemm_cuda(const GemmParams& p, CUstream_st* stream);
}  // namespace lmx::layerskip
