// csrc/layerskip/multiply.cuh: rows of x times the weights of their groups, for gemm.cu and
// swiglu.cu, which differ in what becomes of the sums.
//
// A block of threads takes one tile of the plan, a block of weight rows, and, in calls of few rows,
// one of the pieces that K is cut into (num_splits). Both operands come through a ring of stages of
// cp.async. The decode kernel (up to kMaxSplitRows rows) is bound by the bytes of weights: 64
// weight rows, room for as many rows of x as the call has, sums of pieces through memory and a
// second, small kernel. The prefill kernel (128 rows x 128 weight rows) adds the pieces itself.
// Every row gets the same sums in the same order from either.
#pragma once
#include "gemm.h"
#include "products.cuh"
#include "rows.cuh"

namespace lmx::layerskip {
// ---- launch parameters ------------------------------------------------------------------------
constexpr int kGroupsPerLaunch = 64;  // whose weights' addresses go along as kernel parameters

// The operands; kMatrices weight matrices of one shape are multiplied with the same rows.
template <int kMatrices>
struct MultiplyParams {
  Matrix x;
  Plan plan;
  int64_t num_rows, n, k, num_groups;
  int64_t row_bytes;  // of a weight row, without what may lie between rows
  int64_t num_tiles;  // count_tiles(...)
  int64_t num_splits;
  int64_t first_group;  // of this launch
  int32_t tile_rows;    // of tiles that the plan does not give
  int32_t x_rows;       // room for rows of x in shared memory, a multiple of 16
  float* partial;       // [kMatrices, num_splits, num_rows, n] by position in perm, or null
  int32_t* status;
  WeightGroup group[kMatrices][kGroupsPerLaunch];
};

template <typename T, Format kFormat, bool kPrefill>
struct Shape {
  static constexpr bool kMma = !std::is_same_v<T, float>;
  static constexpr int kThreads = kPrefill ? 256 : 128, kBlocks = kPrefill ? 1 : 3;
  static constexpr int kW = kPrefill && kMma ? 128 : 64, kX = kPrefill ? kTileRows : kMaxSplitRows;
  using WeightChunk = ChunkOf<T, kFormat>;
  using RowChunk = ChunkOf<T, Format::dense>;
  static_assert(WeightChunk::kChunk == RowChunk::kChunk);
  // At least 15 KiB of weights under way in a decode block, of which a multiprocessor has 3.
  static constexpr int kStages = kPrefill                     ? (WeightChunk::kBytes >= 64 ? 3 : 4)
                                 : WeightChunk::kBytes == 128 ? 5
                                 : WeightChunk::kBytes >= 64  ? 6
                                                              : 8;
  static constexpr int kWeightBytes = kW * WeightChunk::kPitch;
  using Mma = MmaProducts<T, kFormat, kW, kX, kPrefill ? 2 : 4, kPrefill ? 4 : 1>;
  using Products = std::conditional_t<kMma, Mma, FmaProducts<kW, kX, kThreads>>;
  static constexpr int kSumPitch = kW + 4;
  static constexpr int kLeastRows = kPrefill ? kX : 16;
  static_assert(kStages * (kWeightBytes + kLeastRows * RowChunk::kPitch) >= kX * kSumPitch * 4);
};

// What every block has at the start of its shared memory; stages of weights, then of rows of x, or
// at the end the sums, lie behind it.
struct alignas(128) MultiplyShared {
  int32_t row[kTileRows];  // -1: none
};
template <typename S>
constexpr size_t shared_bytes(int x_rows) {
  return sizeof(MultiplyShared) + S::kStages * (S::kWeightBytes + x_rows * S::RowChunk::kPitch);
}

// ---- device helpers -----------------------------------------------------------------------------
// The tile that block `index` has, empty where this launch has not its group's weights, and skipped
// where nobody has them.
template <int kMatrices>
__device__ __forceinline__ Tile launched_tile(const MultiplyParams<kMatrices>& p, int64_t index,
                                              bool* no_weights) {
  Tile tile = tile_at(p.plan, p.num_rows, p.num_groups, p.tile_rows, index);
  const int64_t local = tile.group - p.first_group;
  *no_weights = false;
  if (tile.group < 0) return p.first_group == 0 ? tile : Tile{};
  if (local < 0 || local >= kGroupsPerLaunch) return {};
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) *no_weights |= !p.group[m][local].data && p.n * p.k > 0;
  return tile;
}

// Both operands of a block of threads: the weight rows of `group` from `column` on, and the rows
// of x that shared.row names.
template <typename S, int kMatrices>
struct Operands {
  static constexpr int kColumns = S::kW / kMatrices;
  const MultiplyParams<kMatrices>& p;
  const MultiplyShared& shared;
  char *weights, *rows;  // rings of stages
  const char* base[kMatrices];
  int64_t stride[kMatrices], x_stride;  // bytes from row to row
  int64_t columns_left;
  int unit, x_unit, padded_rows, x_bytes;

  __device__ __forceinline__ Operands(const MultiplyParams<kMatrices>& params,
                                      const MultiplyShared& s, char* ring, int32_t group,
                                      int64_t column, int num_rows)
      : p(params), shared(s), weights(ring), rows(ring + S::kStages * S::kWeightBytes) {
    unit = 16;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
      const WeightGroup& g = p.group[m][group - p.first_group];
      base[m] = static_cast<const char*>(g.data) + column * g.row_bytes;
      stride[m] = g.row_bytes;
      const int allowed = unit_of(g.data, g.row_bytes);
      unit = allowed < unit ? allowed : unit;
    }
    x_stride = p.x.stride * S::RowChunk::kElement;
    x_unit = unit_of(p.x.data, x_stride);
    columns_left = p.n - column;
    padded_rows = (num_rows + 15) / 16 * 16;
    x_bytes = p.x_rows * S::RowChunk::kPitch;
  }

  __device__ __forceinline__ void load(int64_t chunk, int stage) const {
    copy_chunk<typename S::WeightChunk, S::kThreads>(
        weights + stage * S::kWeightBytes, S::kW, chunk, p.row_bytes, unit,
        [&](int i) -> const char* {
          const int c = i % kColumns;
          return c < columns_left ? base[i / kColumns] + c * stride[i / kColumns] : nullptr;
        });
    copy_chunk<typename S::RowChunk, S::kThreads>(
        rows + stage * x_bytes, padded_rows, chunk, p.k * S::RowChunk::kElement, x_unit,
        [&](int i) -> const char* {
          const int32_t row = shared.row[i];
          return row >= 0 ? static_cast<const char*>(p.x.data) + row * x_stride : nullptr;
        });
  }
};

// The sums of products over a piece of K, or, in the prefill kernel, over all pieces. They are left
// in the place of the ring.
template <typename S, bool kPrefill, int kMatrices>
__device__ __forceinline__ void sum_products(const Operands<S, kMatrices>& operands, int64_t split,
                                             int num_rows) {
  const auto begin_of = [&](int64_t piece) {
    return piece * ceil_div<int64_t>(operands.p.k, S::WeightChunk::kChunk) / operands.p.num_splits;
  };
  typename S::Products products, total;
  products.fill(0.f);
  if constexpr (kPrefill) total.fill(-0.f);  // -0 + x is x, so pieces are added from the first on
  const int64_t first = kPrefill ? 0 : begin_of(split);
  const int64_t last = begin_of(kPrefill ? operands.p.num_splits : split + 1);
  int64_t piece = 0, piece_end = begin_of(1);
  // Loads are kStages - 1 chunks ahead of the sums.
  int stage = 0;
#pragma unroll 1
  for (int64_t next = first; next < last + S::kStages - 1; ++next) {
    const int64_t chunk = next - (S::kStages - 1);
    if (chunk >= first) {
      ptx::cp_async_wait<S::kStages - 2>();
      __syncthreads();
    }
    if (next < last) operands.load(next, stage);
    ptx::cp_async_commit();
    stage = stage + 1 == S::kStages ? 0 : stage + 1;  // where `chunk` lies
    if (chunk < first) continue;
    products.add_chunk(operands.weights + stage * S::kWeightBytes,
                       operands.rows + stage * operands.x_bytes, num_rows);
    if constexpr (kPrefill) {
      if (chunk + 1 == piece_end) {
        total.add(products);
        products.fill(0.f);
        piece_end = begin_of(++piece + 1);
      }
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  auto* sums = reinterpret_cast<float*>(operands.weights);
  if constexpr (kPrefill)
    total.template store<S::kSumPitch>(sums);
  else
    products.template store<S::kSumPitch>(sums);
}

// ---- kernels ------------------------------------------------------------------------------------
// An Epilogue has finish(row, group, column, sums) and skip(row, column), which write an output.
template <typename T, Format kFormat, bool kPrefill, typename Epilogue>
__global__ void __launch_bounds__(Shape<T, kFormat, kPrefill>::kThreads,
                                  Shape<T, kFormat, kPrefill>::kBlocks)
    multiply_kernel(MultiplyParams<Epilogue::kMatrices> p, Epilogue epilogue) {
  using S = Shape<T, kFormat, kPrefill>;
  constexpr int kMatrices = Epilogue::kMatrices, kColumns = S::kW / kMatrices;
  auto& shared = shared_memory<MultiplyShared>();
  char* const ring = reinterpret_cast<char*>(&shared + 1);
  // Tiles change fastest: blocks that run together share weights.
  const auto tiles = static_cast<uint32_t>(p.num_tiles);
  const auto blocks = static_cast<uint32_t>(ceil_div<int64_t>(p.n, kColumns));
  const int64_t column = int64_t{blockIdx.x / tiles % blocks} * kColumns;
  const int64_t split = blockIdx.x / tiles / blocks;
  bool no_weights;
  const Tile tile = launched_tile(p, blockIdx.x % tiles, &no_weights);
  const bool skipped = tile.group < 0 || no_weights;
  if (tile.rows == 0 || (skipped && p.partial)) return;
  for (int64_t begin = 0; begin < tile.rows; begin += p.x_rows) {
    const int64_t left = tile.rows - begin, first = tile.first + begin;
    const int rows = static_cast<int>(left < p.x_rows ? left : p.x_rows);
    for (int i = threadIdx.x; i < p.x_rows; i += S::kThreads) {
      const int32_t row = i < rows ? row_at(p.plan, p.num_rows, first + i) : -1;
      shared.row[i] = row;
      if (no_weights && row >= 0 && column == 0 && p.status) p.status[row] |= kStatusBadGroup;
    }
    __syncthreads();
    if (!skipped)
      sum_products<S, kPrefill>(Operands<S, kMatrices>(p, shared, ring, tile.group, column, rows),
                                split, rows);
    __syncthreads();
    const auto* sums = reinterpret_cast<const float*>(ring);
    for (int e = threadIdx.x; e < rows * kColumns; e += S::kThreads) {
      const int r = e / kColumns, c = e % kColumns;
      const int32_t row = shared.row[r];
      if (row < 0 || column + c >= p.n) continue;
      if (skipped) {
        epilogue.skip(row, column + c);
        continue;
      }
      float sum[kMatrices];
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) sum[m] = sums[r * S::kSumPitch + m * kColumns + c];
      if (!p.partial) {
        epilogue.finish(row, tile.group, column + c, sum);
        continue;
      }
#pragma unroll
      for (int m = 0; m < kMatrices; ++m)
        p.partial[((m * p.num_splits + split) * p.num_rows + first + r) * p.n + column + c] =
            sum[m];
    }
    __syncthreads();
  }
}

// Adds the pieces: four rows of a tile and 64 columns a block.
constexpr int kReduceThreads = 256, kReduceColumns = 64;
constexpr int kReduceRows = kReduceThreads / kReduceColumns;

template <typename Epilogue>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(MultiplyParams<Epilogue::kMatrices> p, Epilogue epilogue) {
  constexpr int kMatrices = Epilogue::kMatrices;
  const auto tiles = static_cast<uint32_t>(p.num_tiles);
  const auto blocks = static_cast<uint32_t>(ceil_div<int64_t>(p.n, kReduceColumns));
  const int64_t column =
      int64_t{blockIdx.x % blocks} * kReduceColumns + threadIdx.x % kReduceColumns;
  bool no_weights;
  const Tile tile = launched_tile(p, blockIdx.x / blocks % tiles, &no_weights);
  const int64_t r = blockIdx.x / blocks / tiles * kReduceRows + threadIdx.x / kReduceColumns;
  if (r >= tile.rows || column >= p.n) return;
  const int32_t row = row_at(p.plan, p.num_rows, tile.first + r);
  if (row < 0) return;
  if (no_weights && column == 0 && p.status) p.status[row] |= kStatusBadGroup;
  if (tile.group < 0 || no_weights) return epilogue.skip(row, column);
  float sum[kMatrices];
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) {
    const int64_t step = p.num_rows * p.n;
    const float* piece = p.partial + m * p.num_splits * step + (tile.first + r) * p.n + column;
    sum[m] = *piece;
#pragma unroll 4
    for (int64_t s = 1; s < p.num_splits; ++s) sum[m] += piece[s * step];
  }
  epilogue.finish(row, tile.group, column, sum);
}

// ---- launchers ----------------------------------------------------------------------------------
template <typename T, Format kFormat, bool kPrefill, typename Epilogue>
void launch_multiply(const MultiplyParams<Epilogue::kMatrices>& p, const Epilogue& epilogue,
                     cudaStream_t stream) {
  using S = Shape<T, kFormat, kPrefill>;
  const int64_t blocks = ceil_div<int64_t>(p.n, S::kW / Epilogue::kMatrices);
  const int64_t splits = p.partial ? p.num_splits : 1;
  launch(multiply_kernel<T, kFormat, kPrefill, Epilogue>, p.num_tiles * blocks * splits,
         S::kThreads, shared_bytes<S>(p.x_rows), stream, p, epilogue);
  if (!p.partial) return;
  const int64_t quads = ceil_div<int64_t>(p.num_rows, kReduceRows);
  launch(reduce_kernel<Epilogue>, ceil_div<int64_t>(p.n, kReduceColumns) * p.num_tiles * quads,
         kReduceThreads, 0, stream, p, epilogue);
}

// f(T{}, integral_constant<Format>) for what the weights are: 8 kinds.
template <typename F>
void visit_weights(const Weights& w, const F& f) {
  const auto with = [&]<Format kFormat>(auto type) {
    f(type, std::integral_constant<Format, kFormat>{});
  };
  switch (w.format) {
    case Format::dense:
      return visit_cuda_dtype(w.dtype, [&](auto t) { with.template operator()<Format::dense>(t); });
    case Format::int8:
      if (w.dtype == DType::f16) return with.template operator()<Format::int8>(__half{});
      return with.template operator()<Format::int8>(__nv_bfloat16{});
    case Format::q8_0: return with.template operator()<Format::q8_0>(__nv_bfloat16{});
    case Format::q4_0: return with.template operator()<Format::q4_0>(__nv_bfloat16{});
    case Format::q4_1: return with.template operator()<Format::q4_1>(__nv_bfloat16{});
  }
}

// Everything; 8 kinds of weights x (decode, prefill) = 16 instantiations of multiply_kernel.
template <typename Epilogue>
void multiply_cuda(const Weights (&weights)[Epilogue::kMatrices], const Matrix& x, const Plan& plan,
                   int64_t num_rows, float* partial, int32_t* status, const Epilogue& epilogue,
                   cudaStream_t stream) {
  const Weights& w = weights[0];
  if (num_rows == 0 || w.n == 0) return;
  MultiplyParams<Epilogue::kMatrices> p{};
  p.x = x, p.plan = plan, p.num_rows = num_rows;
  p.n = w.n, p.k = w.k, p.num_groups = w.num_groups;
  p.row_bytes = row_bytes(w.format, w.dtype, w.k);
  p.num_splits = num_splits(w.n, w.k);
  p.status = status;
  const bool few = num_rows <= kMaxSplitRows && (partial || p.num_splits == 1);
  p.partial = few && p.num_splits > 1 ? partial : nullptr;
  p.tile_rows = static_cast<int32_t>(few ? kMaxSplitRows : kTileRows);
  p.x_rows = static_cast<int32_t>(few ? ceil_div<int64_t>(num_rows, 16) * 16 : kTileRows);
  p.num_tiles = count_tiles(plan, num_rows, p.tile_rows);
  for (; p.first_group == 0 || p.first_group < w.num_groups; p.first_group += kGroupsPerLaunch) {
    for (int m = 0; m < Epilogue::kMatrices; ++m)
      for (int64_t g = 0; g < kGroupsPerLaunch; ++g)
        p.group[m][g] =
            p.first_group + g < w.num_groups ? weights[m].group[p.first_group + g] : WeightGroup{};
    visit_weights(w, [&](auto type, auto format) {
      using T = decltype(type);
      constexpr Format kFormat = decltype(format)::value;
      if (few)
        launch_multiply<T, kFormat, false>(p, epilogue, stream);
      else
        launch_multiply<T, kFormat, true>(p, epilogue, stream);
    });
  }
}
}  // namespace lmx::layerskip
