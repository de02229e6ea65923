// csrc/attention/tile_cpu.h: a tile of query rows over one chunk of keys. Include it only from
// kernel files.
#pragma once
#include <cstring>
#include <memory>

#include "keys_cpu.h"

namespace lmx::attention::LMX_ISA {
constexpr int kMaxTileRows = 64;

// Sums of a tile's rows over some keys: a top, a sum of weights and a sum of weighted values each.
struct Sums {
  float* top;     // [rows]
  float* weight;  // [rows]
  float* value;   // [rows][width], elements in their places
  static int64_t floats(int rows, int64_t width) { return rows * (width + 2); }
  static Sums at(float* space, int rows) { return {space, space + rows, space + 2 * rows}; }
};

inline int64_t padded_dim(int head_dim) { return ceil_div(head_dim, kStep) * int64_t{kStep}; }

// Rows [first, first + count) of the num_q * group query rows that read one key head, row
// i * group + g being head g of the group of token i.
template <typename T>
class Tile {
 public:
  Tile(const PagedParams& p, int max_rows)
      : p_(p),
        width_(padded_dim(p.head_dim)),
        group_(p.num_heads / p.num_kv_heads),
        plain_(is_plain(p)) {
    const int64_t floats = max_rows * (width_ + kChunk) + 2 * Sums::floats(max_rows, width_);
    space_.reset(new float[floats + kStep]);
    const auto address = reinterpret_cast<uintptr_t>(space_.get());
    query_ = reinterpret_cast<float*>((address + 63) & ~uintptr_t{63});
    weights_ = query_ + max_rows * width_;
    float* sums = weights_ + max_rows * kChunk;
    chunk_ = Sums::at(sums, max_rows);
    total_ = Sums::at(sums + Sums::floats(max_rows, width_), max_rows);
  }
  int64_t width() const { return width_; }
  const Sums& total() const { return total_; }

  // Goes to some rows; the total is that of no keys.
  void open(const Sequence& s, int64_t b, int64_t head, int64_t first, int count) {
    s_ = s, b_ = b, head_ = head, first_ = first, count_ = count;
    least_ = INT32_MAX, largest_ = INT32_MIN;
    const T* query = static_cast<const T*>(p_.query.data);
    for (int r = 0; r < count; ++r) {
      const T* from =
          query + (s.first_q + token(r)) * p_.query.row_stride + head_of(r) * p_.query.head_stride;
      for (int d = 0; d < p_.head_dim; d += kStep)
        store_step(query_ + r * width_ + d, load_elements(from, d));
      least_ = std::min<int64_t>(least_, position(r));
      largest_ = std::max<int64_t>(largest_, position(r));
    }
    clear(total_);
  }

  // The sums over a chunk of keys; false: no row sees any of them.
  bool run(KeyRange range, const Sums& to) {
    collect(p_, s_, b_, head_, range, keys_);
    if (sees_none(p_, keys_, least_, largest_)) return false;
    const bool all = sees_all(p_, keys_, least_, largest_);
    if (!all)
      for (int64_t i = token(0); i <= token(count_ - 1); ++i)
        look(p_, s_, keys_, i, sight_[i - token(0)]);
    multiply_keys();
    for (int r = 0; r < count_; ++r)
      weigh(r, all ? nullptr : sight_[token(r) - token(0)], to.top[r], to.weight[r]);
    multiply_values(to.value);
    return true;
  }
  // Adds a chunk to the total.
  void add(KeyRange range) {
    if (run(range, chunk_)) add(chunk_);
  }
  void add(const Sums& sums) {
    for (int r = 0; r < count_; ++r) {
      const Rescale c = rescale(total_.top[r], sums.top[r]);
      total_.top[r] = c.top;
      total_.weight[r] = total_.weight[r] * c.a + sums.weight[r] * c.b;
      float* to = total_.value + r * width_;
      const float* from = sums.value + r * width_;
      for (int64_t d = 0; d < width_; d += kLanes)
        store(to + d, load(to + d) * Vec(c.a) + load(from + d) * Vec(c.b));
    }
  }
  void clear(const Sums& sums) const {
    std::fill_n(sums.top, count_, -INFINITY);
    std::fill_n(sums.weight, count_, 0.f);
    std::fill_n(sums.value, count_ * width_, 0.f);
  }

  // Writes the rows' results.
  void close() {
    T* out = static_cast<T*>(p_.out);
    for (int r = 0; r < count_; ++r) {
      const int64_t row = (s_.first_q + token(r)) * p_.num_heads + head_of(r);
      const Finish f = finish(total_.top[r], total_.weight[r]);
      const float* from = total_.value + r * width_;
      for (int d = 0; d < p_.head_dim; ++d)
        out[row * p_.head_dim + d] = from_float<T>(from[place_of<T>(d)] * f.scale);
      p_.lse[row] = f.lse;
    }
  }

 private:
  int64_t token(int r) const { return (first_ + r) / group_; }
  int64_t head_of(int r) const { return head_ * group_ + (first_ + r) % group_; }
  int32_t position(int r) const { return p_.query_pos[s_.first_q + token(r)]; }

  Step load_elements(const T* from, int d) const {
    const int left = p_.head_dim - d;
    return left < kStep ? load_part(from + d, left) : load_step(from + d);
  }

  // weights_[r][j] = <query r, key j>.
  void multiply_keys() {
    for (int r = 0; r < count_; r += 4) {
      switch (std::min(4, count_ - r)) {
        case 1: multiply_rows<1>(r); break;
        case 2: multiply_rows<2>(r); break;
        case 3: multiply_rows<3>(r); break;
        default: multiply_rows<4>(r);
      }
    }
  }
  template <int kRows>
  void multiply_rows(int r) {
    const float* query = query_ + r * width_;
    for (int j = 0; j < keys_.count; ++j) {
      Step sum[4] = {zero_step(), zero_step(), zero_step(), zero_step()};
      for (int d = 0; d < p_.head_dim; d += kStep) {
        const Step key = load_elements(keys_.key[j], d);
        for (int i = 0; i < kRows; ++i)
          sum[i] = fma(load_step(query + i * width_ + d), key, sum[i]);
      }
      alignas(16) float dots[4];
      _mm_store_ps(dots, fold4(sum[0], sum[1], sum[2], sum[3]));
      for (int i = 0; i < kRows; ++i) weights_[(r + i) * kChunk + j] = dots[i];
    }
  }

  // From dot products to rounded weights, top and sum of row r.
  void weigh(int r, const uint32_t* sight, float& top, float& sum) {
    float* row = weights_ + r * kChunk;
    const int head = static_cast<int>(head_of(r)), padded = ceil_div(keys_.count, kStep) * kStep;
    const Score score = score_of(p_, head);
    std::fill(row + keys_.count, row + padded, 0.f);
    if (!plain_)
      for (int j = 0; j < keys_.count; ++j)
        row[j] = exponent(score, false, row[j], position(r), keys_.pos[j]);
    const Vec scale(plain_ ? score.scale : 1.f), none(-INFINITY);
    Vec largest = none;
    uint32_t nan = 0;
    for (int j = 0; j < padded; j += kLanes) {
      uint32_t bits = sight ? sight[j / 32] >> (j % 32) : ~0u;
      if (j + kLanes > keys_.count) bits &= j < keys_.count ? (1u << (keys_.count - j)) - 1 : 0u;
      const Vec s = select(bits & ((1u << kLanes) - 1), load(row + j) * scale, none);
      nan |= is_nan(s);
      largest = max(largest, s);
      store(row + j, s);
    }
    top = top_of(nan ? NAN : fold(largest, [](float a, float b) { return a > b ? a : b; }));
    Step total = zero_step();
    for (int j = 0; j < padded; j += kStep) {
      for (int i = 0; i < kRegs; ++i) {
        float* at = row + j + i * kLanes;
        const Vec w = weight(load(at), Vec(top));
        total.reg[i] = total.reg[i] + w;
        store(at, rounded<T>(w));
      }
    }
    sum = fold_step(total);
  }

  // value[r][d] = the sum of weights_[r][j] times element d of value j.
  void multiply_values(float* value) {
    for (int r = 0; r < count_; r += 4) {
      switch (std::min(4, count_ - r)) {
        case 1: add_values<1>(r, value); break;
        case 2: add_values<2>(r, value); break;
        case 3: add_values<3>(r, value); break;
        default: add_values<4>(r, value);
      }
    }
  }
  template <int kRows>
  void add_values(int r, float* value) {
    const float* weights = weights_ + r * kChunk;
    for (int d = 0; d < p_.head_dim; d += kStep) {
      Step sum[kRows];
      for (Step& s : sum) s = zero_step();
      for (int j = 0; j < keys_.count; ++j) {
        const Step v = load_elements(keys_.value[j], d);
        for (int i = 0; i < kRows; ++i) sum[i] = fma(Vec(weights[i * kChunk + j]), v, sum[i]);
      }
      for (int i = 0; i < kRows; ++i) store_step(value + (r + i) * width_ + d, sum[i]);
    }
  }

  const PagedParams& p_;
  const int64_t width_;
  const int group_;
  const bool plain_;
  std::unique_ptr<float[]> space_;
  float *query_, *weights_;
  Sums chunk_, total_;
  Sequence s_;
  int64_t b_, head_, first_, least_, largest_;
  int count_;
  Keys<T> keys_;
  Sight sight_[kMaxTileRows];
};
}  // namespace lmx::attention::LMX_ISA
