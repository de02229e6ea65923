// csrc/layerskip/rows.cuh: elements of any dtype as floats, and which rows a block of threads has.
#pragma once
#include "../common/dtype.cuh"
#include "../common/launch.h"
#include "rows.h"

namespace lmx::layerskip {
__device__ __forceinline__ float read_float(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f32: return static_cast<const float*>(p)[i];
    case DType::f16: return static_cast<float>(static_cast<const __half*>(p)[i]);
    case DType::bf16: return static_cast<float>(static_cast<const __nv_bfloat16*>(p)[i]);
  }
  return 0.f;
}
__device__ __forceinline__ void write_float(void* p, DType dtype, int64_t i, float v) {
  switch (dtype) {
    case DType::f32: static_cast<float*>(p)[i] = v; break;
    case DType::f16: static_cast<__half*>(p)[i] = static_cast<__half>(v); break;
    case DType::bf16: static_cast<__nv_bfloat16*>(p)[i] = static_cast<__nv_bfloat16>(v); break;
  }
}

// Some rows of one group, or some that are skipped.
struct Tile {
  int32_t group;  // -1: skipped rows
  int64_t first;  // position in the plan's perm
  int64_t rows;   // 0: nothing to do
};

// Tiles of a call: those of the plan, then as many of `block_rows` as skipped rows may need.
LMX_HD int64_t count_tiles(const Plan& plan, int64_t num_rows, int64_t block_rows) {
  const int64_t blocks = ceil_div(num_rows, block_rows);
  return plan.perm ? plan.num_tiles + blocks : blocks;
}

// Tile `index` of these. The plan may be anybody's: what leaves the call's rows is empty.
__device__ __forceinline__ Tile tile_at(const Plan& plan, int64_t num_rows, int64_t num_groups,
                                        int64_t block_rows, int64_t index) {
  if (!plan.perm) {
    const int64_t first = index * block_rows, left = num_rows - first;
    return {0, first, left < block_rows ? left : block_rows};
  }
  if (index < plan.num_tiles) {
    const int32_t* t = plan.tiles + 3 * index;
    const Tile tile{t[0], t[1], t[2]};
    const bool inside = tile.group >= 0 && tile.group < num_groups && tile.first >= 0 &&
                        tile.rows > 0 && tile.first + tile.rows <= num_rows;
    return inside ? tile : Tile{};
  }
  const int32_t active = plan.offsets[num_groups];
  const int64_t first = active + (index - plan.num_tiles) * block_rows, left = num_rows - first;
  if (active < 0 || left <= 0) return {};
  return {-1, first, left < block_rows ? left : block_rows};
}

// The row at a position, -1 if the plan names none of the call's.
__device__ __forceinline__ int32_t row_at(const Plan& plan, int64_t num_rows, int64_t position) {
  if (!plan.perm) return static_cast<int32_t>(position);
  const int32_t row = plan.perm[position];
  return row >= 0 && row < num_rows ? row : -1;
}
}  // namespace lmx::layerskip
