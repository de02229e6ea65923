// csrc/attention/attend.cuh: a tile of query rows over its keys, for paged.cu.
//
// The num_q * group query rows that read one key head, row i * group + g being head g of the group
// of token i, are cut into tiles of 16 or 64. A block of threads has one, and all its keys or one
// chunk of them. Keys and values come through the block table into a ring of stages of cp.async,
// a tile of 64 or 32 at a time, each byte read once per tile of rows. With few rows it is bound by
// those bytes, with many by the tensor cores. Tiles of keys that no row sees are not loaded, those
// that every row sees have no mask; a mask is two words of bits a row, in registers.
//
// A row has the same bits from every shape of tile, alone or not, in one block or many:
//   - a score and a weighted sum take their products in the same order (products.cuh);
//   - a chunk's top grows tile by tile, which rescales exactly, as it is an integer;
//   - the sum of weights has four parts, of the keys that the four warps of a tile of 16 rows have,
//     each added up by four lanes, and these in one order;
//   - chunks are added in ascending order: in registers, or by paged.cu where blocks have one each.
// Source: Dao 2024 (arXiv 2307.08691), section 3; for the tiles of packed rows and the chunks, Ye
// et al. 2025 (arXiv 2501.01005), section 3.
#pragma once
#include "../common/dispatch.h"
#include "products.cuh"
#include "work.cuh"

namespace lmx::attention {
// ---- launch parameters -----------------------------------------------------------------------
constexpr int64_t kMaxBlocks = 8192;  // of a launch; a block takes every kMaxBlocks-th unit

template <typename T, int kDim, int kTileRows>
struct Shape {
  static constexpr bool kMma = !std::is_same_v<T, float>;
  static constexpr int kRows = kTileRows;
  static constexpr int kParts = kRows == 16 ? 4 : kDim == 256 ? 2 : 1;  // warps with the same rows
  static constexpr int kThreads = 32 * kParts * (kRows / 16);
  // Per multiprocessor, which bounds a thread's registers to 168 or 255.
  static constexpr int kBlocks = kRows == 16 && kDim < 256 ? 3 : kThreads == 256 ? 1 : 2;
  static constexpr int kPitch = kDim * sizeof(T);
  static constexpr int kKeys = kPitch <= 256 ? 64 : 32;
  static constexpr int kItemBytes = kKeys * kPitch;  // of a stage: the keys or values of a tile
  static constexpr int kStages = kItemBytes > 16384 ? 2 : 3;
  // What a warp has: keys whose scores it computes, columns whose values it sums, in eights.
  static constexpr int kKeyBlocks = kKeys / 8 / kParts, kColumnBlocks = kDim / 8 / kParts;
  static constexpr int kSums = 4 / kParts, kBlocksPerSum = kKeyBlocks / kSums;
  static constexpr int kWords = kKeyBlocks <= 4 ? 1 : kKeyBlocks / 4;
  static constexpr int kWeightPitch = kMma ? 128 : kKeys * 4;
  static constexpr int kWeightBytes = kParts == 1 ? 128 : kRows * kWeightPitch;
  static_assert(kKeys % 32 == 0 && kChunk % kKeys == 0 && kThreads >= kKeys && kThreads >= kRows);
};

// Of a row, over the chunks so far.
struct Total {
  float top, weight;
};

template <typename S>
struct alignas(128) AttendShared {
  char query[S::kRows * S::kPitch];
  char ring[S::kStages * S::kItemBytes];
  char weights[S::kWeightBytes];
  KeyTile<S::kKeys> tile[2];
  Work work;
  Row row[S::kRows];
  Total total[2][S::kThreads];  // of each thread alone
  float largest[S::kParts][S::kRows];
  float sum[4][S::kRows];
};

// ---- a tile of rows --------------------------------------------------------------------------
struct MaxNan {
  __device__ float operator()(float a, float b) const { return ptx::max_nan(a, b); }
};

// Of one of the two rows that a thread has elements of, over a chunk.
struct Sums {
  float top, scale;  // scale: what they are multiplied with before a tile is added
};

template <typename T, int kDim, int kTileRows>
struct Attend {
  using S = Shape<T, kDim, kTileRows>;
  using Tile = KeyTile<S::kKeys>;
  const PagedParams& p;
  AttendShared<S>& shared;
  const Work& work;
  int item = 0;  // of the ring: keys and values in turn
  Sums sums[2];
  float weight[2][S::kSums], value[S::kColumnBlocks][4], total[S::kColumnBlocks][4];
  uint32_t packed[S::kParts == 1 ? S::kKeyBlocks : 1][2];  // weights

  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ static int part() { return threadIdx.x / 32 % S::kParts; }
  __device__ __forceinline__ static int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 / S::kParts * 16;
  }
  __device__ __forceinline__ static int row_of(int h) { return warp_row() + lane() / 4 + 8 * h; }
  __device__ __forceinline__ static int warp_column() { return part() * S::kColumnBlocks * 8; }
  __device__ __forceinline__ Total& total_of(int h) const { return shared.total[h][threadIdx.x]; }
  __device__ __forceinline__ int group() const { return p.num_heads / p.num_kv_heads; }

  __device__ __forceinline__ int head_of(int64_t index) const {
    return static_cast<int>(work.unit.head * group() + index % group());
  }

  __device__ __forceinline__ Attend(const PagedParams& params, AttendShared<S>& memory)
      : p(params), shared(memory), work(memory.work) {
    if (threadIdx.x < S::kRows) open_row(threadIdx.x);
#pragma unroll
    for (int h = 0; h < 2; ++h) total_of(h) = {-INFINITY, 0.f};
    fill(total, 0.f);
    clear_chunk();
  }
  __device__ __forceinline__ void open_row(int i) const {
    Row r{-1, -1, 0, 0.f};
    const int64_t index = work.first_row + i;
    if (index < work.end_row) {
      r.token = static_cast<int32_t>(index / group());
      r.pos = p.query_pos[work.s.first_q + r.token];
      if (p.key_keep) r.own = static_cast<int32_t>(own_key(p, work.s, r.token));
      r.slope = score_of(p, head_of(index)).slope;
    }
    shared.row[i] = r;
  }
  __device__ __forceinline__ void clear_chunk() {
    fill(value, 0.f);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sums[h].top = -INFINITY;
#pragma unroll
      for (float& w : weight[h]) w = 0.f;
    }
  }

  // ---- loads ---------------------------------------------------------------------------------
  __device__ __forceinline__ int next(int64_t tile) const {
    return next_tile<S::kKeys>(p, work, tile);
  }
  __device__ __forceinline__ KeyPlace find_key(int tile) const {
    if (tile >= work.end_tile || threadIdx.x >= S::kKeys) return {};
    return locate<T>(p, work.s, work.unit.b, work.unit.head, work.keys,
                     int64_t{tile} * S::kKeys + threadIdx.x);
  }
  __device__ __forceinline__ void put_tile(int which, int tile, const KeyPlace& key) const {
    if (threadIdx.x == 0) shared.tile[which].index = tile;
    if (threadIdx.x < S::kKeys) put(shared.tile[which], key);
  }
  __device__ __forceinline__ char* stage(int i) const {
    return shared.ring + i % S::kStages * S::kItemBytes;
  }
  // Starts to load item i, of tile i / 2: its keys, or its values.
  __device__ __forceinline__ void load(int i) const {
    const Tile& tile = shared.tile[i / 2 % 2];
    const char* const* from = i % 2 ? tile.value : tile.key;
    if (tile.index < work.end_tile)
      copy_rows<T, S::kKeys, S::kPitch, S::kThreads>(
          stage(i), p.head_dim * static_cast<int>(sizeof(T)), [&](int k) { return from[k]; });
    ptx::cp_async_commit();
  }
  __device__ __forceinline__ void load_query() const {
    copy_rows<T, S::kRows, S::kPitch, S::kThreads>(
        shared.query, p.head_dim * static_cast<int>(sizeof(T)), [&](int r) -> const char* {
          const int64_t index = work.first_row + r;
          if (index >= work.end_row) return nullptr;
          return row_at<T>(p.query, work.s.first_q + index / group(), head_of(index));
        });
  }
  // Waits for the next item, and starts to load a later one into what the last one left.
  __device__ __forceinline__ const char* next_item() {
    ptx::cp_async_wait<S::kStages - 2>();
    __syncthreads();
    load(item + S::kStages - 1);
    return stage(item++);
  }

  // ---- sums ----------------------------------------------------------------------------------
  // Exponents of 2 of this warp's keys; -inf: a row does not see one. False: none sees any.
  __device__ __forceinline__ bool score(float (&x)[S::kKeyBlocks][4], const char* stored,
                                        const Tile& tile) const {
    const int first = part() * S::kKeyBlocks * 8, c = lane() % 4;
    const bool all = sees_all<S::kKeys>(p, work, tile.index), plain = is_plain(p);
    uint32_t bits[2][S::kWords] = {};
    if (!all) {
      uint32_t any = 0;
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int w = 0; w < S::kWords; ++w) {
          bits[h][w] =
              sight(p, work, tile, first / 32 * 32 + 32 * w, shared.row[row_of(h)]) >> (first % 32);
          any |= bits[h][w];
        }
      if (S::kParts == 1 && !__any_sync(~0u, any != 0)) return false;
    }
    fill(x, 0.f);
    if constexpr (S::kMma)
      multiply_keys<T, S::kPitch>(x, shared.query, warp_row(), stored, first, p.head_dim);
    else
      multiply_keys_f32<S::kPitch>(x, shared.query, warp_row(), stored, first, p.head_dim);
    Score scale = score_of(p, 0);
#pragma unroll
    for (int j = 0; j < S::kKeyBlocks; ++j)
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int k = 8 * j + 2 * c + v % 2;
        const Row& r = shared.row[row_of(v / 2)];
        float e = x[j][v] * scale.scale;
        if (!plain) {
          scale.slope = r.slope;
          e = exponent(scale, false, x[j][v], r.pos, tile.pos[first + k]);
        }
        if (!all &&
            (!(bits[v / 2][j / 4] >> (k % 32) & 1) || !allowed(p, r.pos, tile.pos[first + k])))
          e = -INFINITY;
        x[j][v] = e;
      }
    return true;
  }
  // The chunk's top with a tile's largest exponents.
  __device__ __forceinline__ void raise_top(const float (&x)[S::kKeyBlocks][4]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < S::kKeyBlocks; ++j)
        most = ptx::max_nan(most, ptx::max_nan(x[j][2 * h], x[j][2 * h + 1]));
      most = warp_reduce<4>(most, MaxNan{});
      if (S::kParts > 1 && lane() % 4 == 0) shared.largest[part()][row_of(h)] = most;
      sums[h].scale = most;
    }
    if constexpr (S::kParts > 1) __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = sums[h].scale;
      if constexpr (S::kParts > 1) {
#pragma unroll
        for (int i = 0; i < S::kParts; ++i) most = ptx::max_nan(most, shared.largest[i][row_of(h)]);
      }
      const Rescale c = rescale(sums[h].top, top_of(most));
      sums[h].top = c.top, sums[h].scale = c.a;
    }
  }
  // From exponents to weights, which are kept for add_values, and their sums.
  __device__ __forceinline__ void weigh(float (&x)[S::kKeyBlocks][4]) {
#pragma unroll
    for (int j = 0; j < S::kKeyBlocks; ++j)
#pragma unroll
      for (int v = 0; v < 4; ++v) x[j][v] = lmx::attention::weight(x[j][v], sums[v / 2].top);
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int i = 0; i < S::kSums; ++i) {
        float sum = 0.f;
#pragma unroll
        for (int j = i * S::kBlocksPerSum; j < (i + 1) * S::kBlocksPerSum; ++j)
          sum += x[j][2 * h] + x[j][2 * h + 1];
        weight[h][i] = weight[h][i] * sums[h].scale + sum;
      }
    if constexpr (S::kParts > 1) {
      store_weights<T, S::kWeightPitch>(shared.weights, warp_row(), part() * S::kKeyBlocks * 8, x);
    } else {
#pragma unroll
      for (int j = 0; j < S::kKeyBlocks; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h) packed[j][h] = pack(T{}, x[j][2 * h], x[j][2 * h + 1]);
    }
  }
  __device__ __forceinline__ void add_values(const char* stored) {
    if (__any_sync(~0u, sums[0].scale != 1.f || sums[1].scale != 1.f)) {
#pragma unroll
      for (auto& block : value)
#pragma unroll
        for (int v = 0; v < 4; ++v) block[v] *= sums[v / 2].scale;
    }
    if constexpr (!S::kMma) {
      multiply_values_f32<S::kPitch, S::kWeightPitch, S::kKeys>(value, shared.weights, warp_row(),
                                                                stored, warp_column(), p.head_dim);
    } else {
      const auto fragment = [&](uint32_t (&a)[4], int k) {
        if constexpr (S::kParts > 1) {
          ptx::ldmatrix<4>(
              a, shared.weights + place<128>(warp_row() + lane() % 16, 2 * k + lane() / 16));
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) a[i] = packed[2 * k + i / 2][i % 2];
        }
      };
      multiply_values<T, S::kPitch, S::kKeys>(value, fragment, stored, warp_column(), p.head_dim);
    }
  }
  // Adds the chunk to the total and starts another.
  __device__ __forceinline__ void close_chunk() {
    float sum[2][4];
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int i = 0; i < S::kSums; ++i) {
        sum[h][i] = warp_reduce<4>(weight[h][i], Sum{});
        if (S::kParts > 1 && lane() % 4 == 0)
          shared.sum[part() * S::kSums + i][row_of(h)] = sum[h][i];
      }
    if constexpr (S::kParts > 1) {
      __syncthreads();
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[h][i] = shared.sum[i][row_of(h)];
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      Total& all = total_of(h);
      const Rescale c = rescale(all.top, sums[h].top);
      all.top = c.top;
      all.weight = all.weight * c.a + (sum[h][0] + sum[h][1] + sum[h][2] + sum[h][3]) * c.b;
#pragma unroll
      for (int j = 0; j < S::kColumnBlocks; ++j)
#pragma unroll
        for (int v = 2 * h; v < 2 * h + 2; ++v) total[j][v] = total[j][v] * c.a + value[j][v] * c.b;
    }
    clear_chunk();
  }

  // The total of the keys.
  __device__ __forceinline__ void run() {
    constexpr int kTiles = kChunk / S::kKeys;  // of a chunk
    int tile = next(work.keys.begin / S::kKeys);
    put_tile(0, tile, find_key(tile));
    if (tile < work.end_tile) tile = next(tile + 1);
    put_tile(1, tile, find_key(tile));
    __syncthreads();
    load_query();
#pragma unroll
    for (int i = 0; i < S::kStages - 1; ++i) load(i);
    for (int which = 0;; which ^= 1) {
      const int now = shared.tile[which].index;
      if (now >= work.end_tile) break;
      float x[S::kKeyBlocks][4];
      const char* stored = next_item();
      const bool seen = score(x, stored, shared.tile[which]);
      if (seen) {
        raise_top(x);
        weigh(x);
      }
      stored = next_item();
      const int after = shared.tile[which ^ 1].index;
      tile = after < work.end_tile ? next(after + 1) : after;
      const KeyPlace key = find_key(tile);
      if (seen) add_values(stored);
      if (after >= work.end_tile || after / kTiles != now / kTiles) close_chunk();
      put_tile(which, tile, key);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
  }

  // ---- results -------------------------------------------------------------------------------
  // The total to memory, for add_kernel.
  __device__ __forceinline__ void write_sums(const Split& split, float* space) const {
    float* values =
        space + split.place(work.unit.b, work.unit.head, work.unit.tile, work.unit.chunk) *
                    split.unit_floats();
    float* rest = values + S::kRows * kDim;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (shared.row[row_of(h)].token < 0) continue;
      const int r = row_of(h);
      if (part() == 0 && lane() % 4 == 0)
        rest[2 * r] = total_of(h).top, rest[2 * r + 1] = total_of(h).weight;
#pragma unroll
      for (int j = 0; j < S::kColumnBlocks; ++j) {
        float* to = values + r * kDim + warp_column() + first_column<T>(j);
        *reinterpret_cast<float2*>(to) = {total[j][2 * h], total[j][2 * h + 1]};
      }
    }
  }
  __device__ __forceinline__ void write_results() const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const Row& r = shared.row[row_of(h)];
      if (r.token < 0) continue;
      const int64_t at =
          (work.s.first_q + r.token) * p.num_heads + head_of(work.first_row + row_of(h));
      const Finish f = finish(total_of(h).top, total_of(h).weight);
      if (part() == 0 && lane() % 4 == 0) p.lse[at] = f.lse;
#pragma unroll
      for (int j = 0; j < S::kColumnBlocks; ++j) {
        const int column = warp_column() + first_column<T>(j);
        const auto two = pack(T{}, total[j][2 * h] * f.scale, total[j][2 * h + 1] * f.scale);
        T* to = static_cast<T*>(p.out) + at * p.head_dim + column;
        if (column < p.head_dim) *reinterpret_cast<std::remove_cv_t<decltype(two)>*>(to) = two;
      }
    }
  }
};

// ---- kernel ----------------------------------------------------------------------------------
template <typename T, int kDim, int kTileRows>
__global__ void __launch_bounds__(Shape<T, kDim, kTileRows>::kThreads,
                                  Shape<T, kDim, kTileRows>::kBlocks)
    attend_kernel(PagedParams p, Split split) {
  using S = Shape<T, kDim, kTileRows>;
  auto& shared = shared_memory<AttendShared<S>>();
  Unit unit;
  for (int64_t i = blockIdx.x; find_unit(p, split, i, unit);) {
    if (threadIdx.x < 32) open_work<S::kRows, S::kKeys>(p, split, unit, shared.work);
    __syncthreads();
    if (shared.work.exists) {
      Attend<T, kDim, kTileRows> tile(p, shared);
      tile.run();
      if (split.by_chunk)
        tile.write_sums(split, p.space + sums_offset(p));
      else
        tile.write_results();
    }
    i = shared.work.unit.index + gridDim.x;
    __syncthreads();
  }
}

// ---- launcher --------------------------------------------------------------------------------
template <typename T, int kDim, int kTileRows>
void launch_attend(const PagedParams& p, const Split& split, cudaStream_t stream) {
  using S = Shape<T, kDim, kTileRows>;
  const int64_t units = split.num_units();
  launch(attend_kernel<T, kDim, kTileRows>, units < kMaxBlocks ? units : kMaxBlocks, S::kThreads,
         sizeof(AttendShared<S>), stream, p, split);
}

// 2 dtypes x 3 widths x 2 tiles of rows, and float32 with 3 widths: 15 instantiations.
template <typename T>
void attend(const PagedParams& p, const Split& split, cudaStream_t stream) {
  const auto with = [&]<int kDim>(std::integral_constant<int, kDim>) {
    if constexpr (std::is_same_v<T, float>)
      launch_attend<T, kDim, kFewRows>(p, split, stream);
    else if (split.tile_rows == kFewRows)
      launch_attend<T, kDim, kFewRows>(p, split, stream);
    else
      launch_attend<T, kDim, kManyRows>(p, split, stream);
  };
  visit_int<64, 128, 256>(split.width, "width", with);
}
}  // namespace lmx::attention
