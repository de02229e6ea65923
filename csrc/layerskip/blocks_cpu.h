// csrc/layerskip/blocks_cpu.h: how a CPU GEMM is cut into work. Include it only from kernel files.
#pragma once
#include "multiply.h"

namespace lmx::layerskip::LMX_ISA {
// The plan with its numbers checked: of a plan that is not skip_plan's own nothing may be read or
// written past an end.
inline void check_plan(const char* op, const Plan& plan, int64_t num_rows, int64_t num_groups) {
  if (!plan.perm) return;
  const auto fail = [op](const std::string& what) {
    throw std::invalid_argument(std::string("lmx::") + op +
                                ": expected plan made by skip_plan for " + "these groups, got " +
                                what);
  };
  int32_t last = 0;
  for (int64_t g = 0; g <= num_groups; ++g) {
    const int32_t offset = plan.offsets[g];
    if (offset < last || offset > num_rows || (g == 0 && offset != 0))
      fail("offsets[" + std::to_string(g) + "] = " + std::to_string(offset));
    last = offset;
  }
  for (int64_t i = 0; i < num_rows; ++i)
    if (plan.perm[i] < 0 || plan.perm[i] >= num_rows)
      fail("perm[" + std::to_string(i) + "] = " + std::to_string(plan.perm[i]));
}

// A row of x as it is kept. Rows a multiple of 4 KiB apart would share a few sets of the
// first-level cache; a row begins 21 lines further round than the one before.
inline int64_t padded_width(int64_t k) {
  constexpr int64_t kSets = 64, kShift = 21, kFloats = 16;
  const int64_t lines = ceil_div<int64_t>(k, kFloats);
  return (lines + (kShift - lines % kSets + kSets) % kSets) * kFloats;
}

// The active rows of a call, sorted by group: as floats, or packed for tiles.
class ActiveRows {
 public:
  ActiveRows(const Matrix& x, int64_t k, Order order, const Plan& plan, int64_t num_rows,
             int64_t num_groups)
      : plan_(plan), num_rows_(num_rows) {
    num_active_ = plan.perm ? plan.offsets[num_groups] : num_rows;
    row_.resize(num_active_);
    if (order == Order::tiles) {
      pack(x, k, num_groups);
      return;
    }
    visit_dtype(x.dtype, [&](auto type) {
      using T = decltype(type);
      const auto source = [&](int64_t i) {
        return static_cast<const T*>(x.data) + row_id(i) * x.stride;
      };
      if constexpr (std::is_same_v<T, float>) {
        if (k % kStep == 0 && num_active_ <= kMaxX) {
          for (int64_t i = 0; i < num_active_; ++i) row_[i] = source(i);
          return;
        }
      }
      const int64_t padded = padded_width(k);
      float* first = allocate(num_active_ * padded);
      const int64_t grain = (1 << 15) / (padded + 1) + 1;
      parallel_for(0, num_active_, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          widen_row(source(i), k, order, first + i * padded);
          row_[i] = first + i * padded;
        }
      });
    });
  }
  int64_t begin(int64_t group) const { return plan_.perm ? plan_.offsets[group] : 0; }
  int64_t end(int64_t group) const { return plan_.perm ? plan_.offsets[group + 1] : num_rows_; }
  int64_t num_active() const { return num_active_; }
  int64_t row_id(int64_t i) const { return plan_.perm ? plan_.perm[i] : i; }
  const float* const* at(int64_t i) const { return row_.data() + i; }

 private:
  // 16 rows at a time, of one group.
  void pack(const Matrix& x, int64_t k, int64_t num_groups) {
    constexpr int64_t kRows = 16;
    std::vector<std::pair<int64_t, int64_t>> tiles;
    for (int64_t g = 0; g < (plan_.perm ? num_groups : 1); ++g)
      for (int64_t i = begin(g); i < end(g); i += kRows)
        tiles.emplace_back(i, std::min(i + kRows, end(g)));
    const int64_t floats = packed_floats(k), num_tiles = static_cast<int64_t>(tiles.size());
    float* space = allocate(num_tiles * floats);
    parallel_for(0, num_tiles, (1 << 15) / (floats + 1) + 1, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) {
        const auto [first, last] = tiles[t];
        const Bf16* source[kRows];
        for (int64_t i = first; i < last; ++i) {
          source[i - first] = static_cast<const Bf16*>(x.data) + row_id(i) * x.stride;
          row_[i] = space + t * floats + (i - first);
        }
        pack_rows(source, static_cast<int>(last - first), k, space + t * floats);
      }
    });
  }
  // On a border of cache lines.
  float* allocate(int64_t floats) {
    space_.resize(floats + kStep);
    const auto address = reinterpret_cast<uintptr_t>(space_.data());
    return reinterpret_cast<float*>((address + 63) & ~uintptr_t{63});
  }

  const Plan& plan_;
  int64_t num_rows_, num_active_;
  std::vector<const float*> row_;
  std::vector<float> space_;
};

// A group with rows but without weights is an error, or makes its rows skipped ones.
inline std::vector<int64_t> live_groups(const char* op, const char* name, const Weights& w,
                                        const ActiveRows& rows, int32_t* status) {
  std::vector<int64_t> live;
  for (int64_t g = 0; g < w.num_groups; ++g) {
    if (rows.begin(g) == rows.end(g)) continue;
    if (w.group[g].data || w.n * w.k == 0) {
      live.push_back(g);
      continue;
    }
    if (!status)
      throw std::invalid_argument(std::string("lmx::") + op + ": expected " + name + "s[" +
                                  std::to_string(g) + "] with weights, for group " +
                                  std::to_string(g) + " has rows; got an empty tensor");
    for (int64_t i = rows.begin(g); i < rows.end(g); ++i) status[rows.row_id(i)] |= kStatusBadGroup;
  }
  return live;
}

// body(group, first weight row, number of them, first row, number of rows, space) for every piece:
// the rows of each live group times each block of its weights.
template <typename F>
void for_blocks(const Weights& w, const ActiveRows& rows, const std::vector<int64_t>& live,
                const F& body) {
  constexpr int64_t kGrainWeights = 1 << 16;
  const BlockSize size = block_size(w, rows.num_active());
  const int64_t num_blocks = ceil_div<int64_t>(w.n, size.n);
  const int64_t grain = std::max<int64_t>(1, kGrainWeights / (size.n * (w.k + 1)));
  parallel_for(0, static_cast<int64_t>(live.size()) * num_blocks, grain,
               [&](int64_t begin, int64_t end) {
                 const TileScope tiles(uses_tiles(w));
                 MultiplySpace space;
                 for (int64_t task = begin; task < end; ++task) {
                   const int64_t g = live[task / num_blocks];
                   const int64_t first = task % num_blocks * size.n;
                   const int count = static_cast<int>(std::min<int64_t>(size.n, w.n - first));
                   for (int64_t i = rows.begin(g); i < rows.end(g); i += size.m)
                     body(g, first, count, i, std::min(size.m, rows.end(g) - i), space);
                 }
               });
}
}  // namespace lmx::layerskip::LMX_ISA
