// csrc/attention/tile_cpu.h: a tile of query rows over one chunk of keys. Include it only from
// kernel files.
#pragma once
#include <cstring>
#include <memory>

#include "keys_cpu.h"
#include "products_cpu.h"
#include "tiles_cpu.h"

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
    const int64_t query = kInTiles<T> ? query_floats(max_rows, p.head_dim) : max_rows * width_;
    const int64_t weights = kChunk * (kInTiles<T> ? padded(max_rows, kPassRows) : max_rows);
    const int64_t tiles =
        kInTiles<T> ? weight_floats(max_rows) + pair_floats(p.head_dim) : int64_t{0};
    const int64_t sums = Sums::floats(max_rows, width_);
    space_.reset(new float[query + weights + tiles + 2 * sums + kStep]);
    const auto address = reinterpret_cast<uintptr_t>(space_.get());
    query_ = reinterpret_cast<float*>((address + 63) & ~uintptr_t{63});
    weights_ = query_ + query;
    narrow_ = weights_ + weights;
    chunk_ = Sums::at(narrow_ + tiles, max_rows);
    total_ = Sums::at(narrow_ + tiles + sums, max_rows);
  }
  int64_t width() const { return width_; }
  const Sums& total() const { return total_; }

  // Goes to some rows; the total is that of no keys.
  void open(const Sequence& s, int64_t b, int64_t head, int64_t first, int count) {
    s_ = s, b_ = b, head_ = head, first_ = first, count_ = count;
    least_ = INT32_MAX, largest_ = INT32_MIN;
    const T* rows[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
      rows[r] = static_cast<const T*>(p_.query.data) +
                (s.first_q + token(r)) * p_.query.row_stride + head_of(r) * p_.query.head_stride;
      least_ = std::min<int64_t>(least_, position(r));
      largest_ = std::max<int64_t>(largest_, position(r));
    }
    take_query(rows);
    clear(total_);
    ahead_ = {-1, -1};
  }

  // The sums over a chunk of keys; false: no row sees any of them. `next` is the chunk after it,
  // or nothing.
  bool run(KeyRange range, KeyRange next, const Sums& to) {
    if (range.begin != ahead_.begin || range.end != ahead_.end) collect(range, *keys_);
    ahead_ = next;
    if (sees_none(p_, *keys_, least_, largest_)) return look_ahead(), false;
    const bool all = sees_all(p_, *keys_, least_, largest_);
    if (!all)
      for (int64_t i = token(0); i <= token(count_ - 1); ++i)
        look(p_, s_, *keys_, i, sight_[i - token(0)]);
    multiply_keys();
    for (int r = 0; r < count_; ++r)
      weigh(r, all ? nullptr : sight_[token(r) - token(0)], to.top[r], to.weight[r]);
    multiply_values(to.value);
    return true;
  }
  // Adds a chunk to the total.
  void add(KeyRange range, KeyRange next) {
    if (run(range, next, chunk_)) add(chunk_);
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
        out[row * p_.head_dim + d] =
            from_float<T>(from[kInTiles<T> ? d : place_of<T>(d)] * f.scale);
      p_.lse[row] = f.lse;
    }
  }

 private:
  int64_t token(int r) const { return (first_ + r) / group_; }
  int64_t head_of(int r) const { return head_ * group_ + (first_ + r) % group_; }
  int32_t position(int r) const { return p_.query_pos[s_.first_q + token(r)]; }

  void take_query(const T* const* rows) {
#if defined(__AMX_BF16__)
    if constexpr (kInTiles<T>) return pack_query(rows, count_, p_.head_dim, query_);
#endif
    for (int r = 0; r < count_; ++r)
      for (int d = 0; d < p_.head_dim; d += kStep)
        store_step(query_ + r * width_ + d, load_elements(rows[r], d, p_.head_dim));
  }
  void collect(KeyRange range, Keys<T>& keys) const {
    LMX_ISA::collect(p_, s_, b_, head_, range, keys);
  }
  // The next chunk's keys become those at hand.
  void look_ahead() {
    collect(ahead_, *next_);
    std::swap(keys_, next_);
    // One read per page of memory: asking alone may not find an address that is not at hand.
    constexpr int64_t kBytes = 4096;
    const int apart = static_cast<int>(
        std::clamp<int64_t>(kBytes / (p_.head_dim * int64_t{sizeof(T)}), 1, p_.page_size));
    for (int i = 0; i < keys_->count; i += apart) {
      static_cast<void>(*reinterpret_cast<const volatile char*>(keys_->key[i]));
      static_cast<void>(*reinterpret_cast<const volatile char*>(keys_->value[i]));
    }
  }

  // weights_[r][j] = <query r, key j>. A few keys at a time meet all rows, while they are in
  // first-level cache; the values that will be wanted next are asked for.
  void multiply_keys() {
    const int count = keys_->count;
#if defined(__AMX_BF16__)
    if constexpr (kInTiles<T>)
      return tile_keys(query_, p_.head_dim, count_, keys_->key, count, weights_);
#endif
    for (int j = 0; j < count; j += kBlock)
      LMX_ISA::multiply_keys<T>(query_, width_, p_.head_dim, count_, keys_->key + j,
                                std::min(kBlock, ceil_div(count - j, 8) * 8), keys_->value + j,
                                weights_ + j, kChunk);
  }

  // From dot products to rounded weights, top and sum of row r.
  void weigh(int r, const uint32_t* sight, float& top, float& sum) {
    float* row = weights_ + r * kChunk;
    const int head = static_cast<int>(head_of(r)), padded = ceil_div(keys_->count, kStep) * kStep;
    const Score score = score_of(p_, head);
    std::fill(row + keys_->count, row + padded, 0.f);
    if (!plain_)
      for (int j = 0; j < keys_->count; ++j)
        row[j] = exponent(score, false, row[j], position(r), keys_->pos[j]);
    const Vec scale(plain_ ? score.scale : 1.f), none(-INFINITY);
    Vec largest = none;
    uint32_t nan = 0;
    for (int j = 0; j < padded; j += kLanes) {
      Vec s = load(row + j) * scale;
      if (sight || j + kLanes > keys_->count) {
        uint32_t bits = sight ? sight[j / 32] >> (j % 32) : ~0u;
        if (j + kLanes > keys_->count)
          bits &= j < keys_->count ? (1u << (keys_->count - j)) - 1 : 0u;
        s = select(bits & ((1u << kLanes) - 1), s, none);
      }
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

  // value[r][d] = the sum of weights_[r][j] times element d of value j. The next chunk's keys are
  // asked for meanwhile, and are those at hand afterwards.
  void multiply_values(float* value) {
    const Keys<T>& keys = *keys_;
    look_ahead();
#if defined(__AMX_BF16__)
    if constexpr (kInTiles<T>) {
      auto* weights = reinterpret_cast<Bf16*>(narrow_);
      auto* pairs = reinterpret_cast<Bf16*>(narrow_ + weight_floats(count_));
      narrow_weights(weights_, count_, keys.count, weights);
      pair_values(keys.value, keys.count, p_.head_dim, pairs);
      return tile_values(weights, count_, pairs, keys.count, p_.head_dim, value, width_);
    }
#endif
    std::fill_n(value, count_ * width_, 0.f);
    for (int j = 0; j < keys.count; j += kBlock) {
      const int block = std::min(kBlock, keys.count - j);
      const Ahead<T> next = keys_->count >= j + block ? keys_->key + j : nullptr;
      add_values<T>({weights_ + j, kChunk, keys.value + j, block, p_.head_dim, next, value, width_},
                    count_);
    }
  }

  static constexpr int kBlock = 32;  // keys that meet all rows before the next ones

  const PagedParams& p_;
  const int64_t width_;
  const int group_;
  const bool plain_;
  std::unique_ptr<float[]> space_;
  float *query_, *weights_, *narrow_;  // the last one for tiles
  Sums chunk_, total_;
  Sequence s_;
  int64_t b_, head_, first_, least_, largest_;
  int count_;
  Keys<T> space_of_keys_[2];
  Keys<T>*keys_ = space_of_keys_, *next_ = space_of_keys_ + 1;
  KeyRange ahead_;  // what `keys_` holds before a chunk is run
  Sight sight_[kMaxTileRows];
};
}  // namespace lmx::attention::LMX_ISA
