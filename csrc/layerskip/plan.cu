// csrc/layerskip/plan.cu: CUDA side of plan.h. A stable counting sort: a match instruction tells a
// warp which of its rows share a bucket, so up to kPlanBlockRows rows need one block of threads.
// Beyond that, or for many groups, the same sort digit by digit of the group, each digit in three
// launches. Bound by latency: a few microseconds in one block.
#include "../common/warp.cuh"
#include "plan.h"

namespace lmx::layerskip {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kRowsPerWarp = kPlanBlockRows / kWarps;
constexpr int kDigitBits = 10;
constexpr int kBuckets = kPlanDigits + 1;  // of one block: the groups and the skipped rows
static_assert(1 << kDigitBits == kPlanDigits && kPlanDigits == kThreads);

struct PlanShared {
  uint16_t before[kWarps][kBuckets];  // a bucket's rows in earlier warps
  int32_t start[kBuckets];            // how many rows a bucket has; then where they go
  int32_t tile_start[kThreads];
  int32_t scratch[kWarps];
};

// ---- device helpers -----------------------------------------------------------------------
// Of a row of this block's kPlanBlockRows: its bucket, -1 if there is no such row, and its rank
// among the lanes with the same one.
struct Ranked {
  int bucket, rank, same;
};
template <typename Bucket>
__device__ __forceinline__ Ranked rank_row(const Bucket& bucket, int i) {
  const int b = bucket(i), lane = threadIdx.x % kWarpSize;
  const unsigned same = __match_any_sync(kFullWarp, b);
  return {b, __popc(same & ((1u << lane) - 1)), __popc(same)};
}
__device__ __forceinline__ int row_of_lane(int step) {
  return threadIdx.x / kWarpSize * kRowsPerWarp + step + threadIdx.x % kWarpSize;
}

// Fills `before`, and `start` with the buckets' sizes.
template <typename Bucket>
__device__ __forceinline__ void count_buckets(PlanShared& s, int num_buckets,
                                              const Bucket& bucket) {
  uint16_t* mine = s.before[threadIdx.x / kWarpSize];
  for (int b = threadIdx.x % kWarpSize; b < num_buckets; b += kWarpSize) mine[b] = 0;
  __syncwarp();
  for (int step = 0; step < kRowsPerWarp; step += kWarpSize) {
    const Ranked r = rank_row(bucket, row_of_lane(step));
    if (r.bucket >= 0 && r.rank == 0)
      mine[r.bucket] = static_cast<uint16_t>(mine[r.bucket] + r.same);
    __syncwarp();
  }
  __syncthreads();
  for (int b = threadIdx.x; b < num_buckets; b += kThreads) {
    int32_t sum = 0;
    for (auto& warp : s.before) {
      const uint16_t count = warp[b];
      warp[b] = static_cast<uint16_t>(sum);
      sum += count;
    }
    s.start[b] = sum;
  }
  __syncthreads();
}

// put(i, position) for each row; `start` says where the buckets begin.
template <typename Bucket, typename Put>
__device__ __forceinline__ void place_rows(PlanShared& s, const Bucket& bucket, const Put& put) {
  uint16_t* mine = s.before[threadIdx.x / kWarpSize];
  for (int step = 0; step < kRowsPerWarp; step += kWarpSize) {
    const int i = row_of_lane(step);
    const Ranked r = rank_row(bucket, i);
    const int32_t base = r.bucket >= 0 ? mine[r.bucket] : 0;
    __syncwarp();
    if (r.bucket >= 0) {
      put(i, s.start[r.bucket] + base + r.rank);
      if (r.rank == 0) mine[r.bucket] = static_cast<uint16_t>(base + r.same);
    }
    __syncwarp();
  }
}

// The row's group, or num_groups where it is skipped; what is out of range is counted and noted.
__device__ __forceinline__ int32_t key_of(const PlanParams& p, int64_t row) {
  const int32_t g = planned_group(p, row);
  return g >= 0 ? g : static_cast<int32_t>(p.groups.num_groups);
}
__device__ __forceinline__ int32_t note_bad_row(const PlanParams& p, int64_t row) {
  if (row >= p.groups.num_rows || !bad_plan_row(p, row)) return 0;
  if (p.status) p.status[row] |= kStatusBadGroup;
  return 1;
}

// Tiles of kThreads groups from `group` on, whose rows begin at s.start[0], s.start[1], ...; those
// behind the last group are empty. `written` tiles are there already; returns how many then are.
__device__ __forceinline__ int64_t write_tiles(const PlanParams& p, PlanShared& s, int64_t group,
                                               int64_t written) {
  const int32_t rows = s.start[threadIdx.x + 1] - s.start[threadIdx.x];
  const auto mine = static_cast<int32_t>(ceil_div<int64_t>(rows, p.block_m));
  int32_t total;
  s.tile_start[threadIdx.x] = block_exclusive_sum<kThreads>(mine, total, s.scratch);
  __syncthreads();
  for (int32_t t = threadIdx.x; t < total; t += kThreads) {
    int low = 0, high = kThreads;  // the last group whose tiles begin at t or before is `low`
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (s.tile_start[middle] <= t ? low : high) = middle;
    }
    const int64_t first = s.start[low] + (t - s.tile_start[low]) * p.block_m;
    const int64_t left = s.start[low + 1] - first;
    int32_t* tile = p.tiles + 3 * (written + t);
    tile[0] = static_cast<int32_t>(group + low);
    tile[1] = static_cast<int32_t>(first);
    tile[2] = static_cast<int32_t>(left < p.block_m ? left : p.block_m);
  }
  return written + total;
}
__device__ __forceinline__ void pad_tiles(const PlanParams& p, int64_t used) {
  for (int64_t t = used + threadIdx.x; t < p.num_tiles; t += kThreads) {
    p.tiles[3 * t] = -1;
    p.tiles[3 * t + 1] = p.tiles[3 * t + 2] = 0;
  }
}

// ---- one block ------------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) plan_kernel(PlanParams p) {
  auto& s = shared_memory<PlanShared>();
  const int64_t num_rows = p.groups.num_rows;
  const int num_groups = static_cast<int>(p.groups.num_groups);
  const auto bucket = [&](int i) { return i < num_rows ? key_of(p, i) : -1; };
  int32_t num_bad = 0;
  for (int64_t row = threadIdx.x; row < num_rows; row += kThreads) num_bad += note_bad_row(p, row);
  count_buckets(s, num_groups + 1, bucket);
  const int g = threadIdx.x;
  const int32_t rows = g < num_groups ? s.start[g] : 0;
  const int32_t num_groups_used = __syncthreads_count(rows > 0);
  int32_t active, total_bad;
  const int32_t first = block_exclusive_sum<kThreads>(rows, active, s.scratch);
  block_exclusive_sum<kThreads>(num_bad, total_bad, s.scratch);
  s.start[g] = first;  // behind the last group: where the skipped rows begin
  if (g < num_groups) p.offsets[g] = first;
  if (g == 0) p.offsets[num_groups] = s.start[kPlanDigits] = active;
  __syncthreads();
  place_rows(s, bucket, [&](int row, int32_t position) { p.perm[position] = row; });
  const int64_t used = write_tiles(p, s, 0, 0);
  pad_tiles(p, used);
  if (g == 0) {
    p.info[0] = active;
    p.info[1] = num_groups_used;
    p.info[2] = static_cast<int32_t>(used);
    p.info[3] = total_bad;
  }
}

// ---- many rows or groups: digit after digit, from the lowest on ---------------------------------
struct Pass {
  const int32_t* from;  // rows as the pass before left them; null: in order
  int32_t* to;
  int32_t* counts;  // [kPlanDigits, num_blocks]: rows of a digit in a block; then where they go
  int64_t num_blocks;
  int shift;
};
__device__ __forceinline__ int32_t pass_row(const PlanParams& p, const Pass& pass, int i) {
  const int64_t at = blockIdx.x * kPlanBlockRows + i;
  if (at >= p.groups.num_rows) return -1;
  return pass.from ? pass.from[at] : static_cast<int32_t>(at);
}
__device__ __forceinline__ int digit_of(const PlanParams& p, const Pass& pass, int32_t row) {
  return row < 0 ? -1 : key_of(p, row) >> pass.shift & (kPlanDigits - 1);
}

__global__ void __launch_bounds__(kThreads) count_kernel(PlanParams p, Pass pass) {
  auto& s = shared_memory<PlanShared>();
  count_buckets(s, kPlanDigits, [&](int i) { return digit_of(p, pass, pass_row(p, pass, i)); });
  pass.counts[threadIdx.x * pass.num_blocks + blockIdx.x] = s.start[threadIdx.x];
}

// One block.
__global__ void __launch_bounds__(kThreads) scan_kernel(Pass pass) {
  auto& s = shared_memory<PlanShared>();
  int32_t carry = 0;
  for (int64_t begin = 0; begin < kPlanDigits * pass.num_blocks; begin += kThreads) {
    int32_t& count = pass.counts[begin + threadIdx.x];
    int32_t total;
    const int32_t before = block_exclusive_sum<kThreads>(count, total, s.scratch);
    count = carry + before;
    carry += total;
  }
}

__global__ void __launch_bounds__(kThreads) place_kernel(PlanParams p, Pass pass) {
  auto& s = shared_memory<PlanShared>();
  const auto digit = [&](int i) { return digit_of(p, pass, pass_row(p, pass, i)); };
  count_buckets(s, kPlanDigits, digit);
  s.start[threadIdx.x] = pass.counts[threadIdx.x * pass.num_blocks + blockIdx.x];
  __syncthreads();
  place_rows(s, digit, [&](int i, int32_t position) { pass.to[position] = pass_row(p, pass, i); });
}

// offsets[g]: the first of the sorted rows whose key is not below g.
__global__ void __launch_bounds__(kThreads) offsets_kernel(PlanParams p) {
  const int64_t g = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (g > p.groups.num_groups) return;
  int64_t low = 0, high = p.groups.num_rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (key_of(p, p.perm[middle]) < g)
      low = middle + 1;
    else
      high = middle;
  }
  p.offsets[g] = static_cast<int32_t>(low);
}

// One block: tiles and info.
__global__ void __launch_bounds__(kThreads) tiles_kernel(PlanParams p) {
  auto& s = shared_memory<PlanShared>();
  const int64_t num_groups = p.groups.num_groups;
  const auto offset = [&](int64_t g) { return p.offsets[g < num_groups ? g : num_groups]; };
  int64_t used = 0;
  int32_t num_groups_used = 0, num_bad = 0, total_bad;
  for (int64_t row = threadIdx.x; row < p.groups.num_rows; row += kThreads)
    num_bad += note_bad_row(p, row);
  for (int64_t group = 0; group < num_groups; group += kThreads) {
    s.start[threadIdx.x] = offset(group + threadIdx.x);
    if (threadIdx.x == 0) s.start[kThreads] = offset(group + kThreads);
    __syncthreads();
    num_groups_used += __syncthreads_count(s.start[threadIdx.x + 1] > s.start[threadIdx.x]);
    used = write_tiles(p, s, group, used);
    __syncthreads();
  }
  pad_tiles(p, used);
  block_exclusive_sum<kThreads>(num_bad, total_bad, s.scratch);
  if (threadIdx.x == 0) {
    p.info[0] = p.offsets[num_groups];
    p.info[1] = num_groups_used;
    p.info[2] = static_cast<int32_t>(used);
    p.info[3] = total_bad;
  }
}

void plan_by_digits(const PlanParams& p, cudaStream_t stream) {
  const int64_t num_rows = p.groups.num_rows, num_groups = p.groups.num_groups;
  const int64_t num_blocks = ceil_div<int64_t>(num_rows, kPlanBlockRows);
  int num_passes = 1;
  while (num_groups >> (num_passes * kDigitBits)) ++num_passes;
  // The last pass writes perm, the others take turns.
  int32_t *to = num_passes % 2 ? p.perm : p.space, *other = num_passes % 2 ? p.space : p.perm;
  Pass pass{.from = nullptr,
            .to = to,
            .counts = p.space + num_rows,
            .num_blocks = num_blocks,
            .shift = 0};
  for (int i = 0; i < num_passes; ++i) {
    launch(count_kernel, num_blocks, kThreads, sizeof(PlanShared), stream, p, pass);
    launch(scan_kernel, 1, kThreads, sizeof(PlanShared), stream, pass);
    launch(place_kernel, num_blocks, kThreads, sizeof(PlanShared), stream, p, pass);
    pass.from = pass.to;
    pass.to = i % 2 ? to : other;
    pass.shift += kDigitBits;
  }
}
}  // namespace

// ---- launcher -----------------------------------------------------------------------------
void plan_cuda(const PlanParams& p, cudaStream_t stream) {
  if (plan_space(p.groups.num_rows, p.groups.num_groups) == 0)
    return launch(plan_kernel, 1, kThreads, sizeof(PlanShared), stream, p);
  if (p.groups.num_rows > 0) plan_by_digits(p, stream);
  launch(offsets_kernel, ceil_div<int64_t>(p.groups.num_groups + 1, kThreads), kThreads, 0, stream,
         p);
  launch(tiles_kernel, 1, kThreads, sizeof(PlanShared), stream, p);
}
}  // namespace lmx::layerskip
