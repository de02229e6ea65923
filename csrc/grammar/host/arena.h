// grammar/host/arena.h: hash-consed stacks and configurations.
//
// A frame is what may come after a rule: a set of (state to return to, frame below), so all callers
// of a rule at one place share one frame. A configuration is a set of (state, frame), all that a
// prefix of the text can be in. Neither knows a position, so equal contexts are equal ids for ever,
// and steps, masks and checks of suffixes are computed once per id.
//
// Ids are never reused while an arena lives. Reading a memo takes no lock; whoever finds none takes
// the engine's and fills it in.
#pragma once
#include <atomic>
#include <memory>
#include <unordered_map>
#include <vector>

#include "states.h"
#include "trie.h"

namespace lmx::grammar {
struct Mask;

struct Item {
  int32_t state, frame;
  auto operator<=>(const Item&) const = default;
};
constexpr int32_t kBottom = 0;    // the frame below the root rule
constexpr int32_t kDone = -2;     // its one member: the text may end here
constexpr int32_t kUnknown = -2;  // of a step that was not taken yet; kNone: there is no way

// Elements whose address never changes, readable while others are added.
template <typename T>
class Stable {
 public:
  Stable() : chunks_(std::make_unique<std::atomic<T*>[]>(kChunks)) {}
  ~Stable() {
    for (int32_t i = 0; i < kChunks && chunks_[i]; ++i) delete[] chunks_[i].load();
  }
  T& operator[](int32_t i) const {
    return chunks_[i >> kShift].load(std::memory_order_acquire)[i & (kSize - 1)];
  }
  int32_t add() {
    if (size_ == kChunks << kShift) throw GrammarLimitError("grammar: too many configurations");
    if ((size_ & (kSize - 1)) == 0)
      chunks_[size_ >> kShift].store(new T[kSize](), std::memory_order_release);
    return size_++;
  }
  int32_t size() const { return size_; }

 private:
  static constexpr int32_t kShift = 9, kSize = 1 << kShift, kChunks = 1 << 13;
  std::unique_ptr<std::atomic<T*>[]> chunks_;
  int32_t size_ = 0;
};

struct Frame {
  const Item* items;
  int32_t count;
  int32_t popped = kUnknown;   // the configuration after the rule above has ended
  int32_t clamped = kUnknown;  // the frame whose counts are capped
  bool has_counts;             // here or below
};

struct StepEdge {
  int32_t to;
  uint8_t byte;
  const StepEdge* next;
};

struct Config {
  const Item* items;
  int32_t count;
  bool is_accepting;  // the text may end here
  bool has_tokens;    // some state has token edges
  bool has_counts;
  std::atomic<const StepEdge*> steps{nullptr};      // a few
  std::atomic<std::atomic<int32_t>*> row{nullptr};  // or all 256
  std::atomic<Mask*> mask{nullptr};
  int32_t clamped = kUnknown;
  const Alphabet* loop = nullptr;  // bytes that lead back here; null: not known yet
};

// Steps that may still be taken before a call is given up.
struct Meter {
  int64_t steps_left = 0;
  int64_t deadline_ns = 0;  // 0: none
  void spend(int64_t steps = 1) {
    if ((steps_left -= steps) < 0 || ((steps_left & 255) == 0 && deadline_ns)) check();
  }
  void check() const;
};

class Arena {
 public:
  Arena(States& states, int32_t longest);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int32_t root() const { return root_; }
  const Config& config(int32_t c) const { return configs_[c]; }
  Config& config(int32_t c) { return configs_[c]; }
  const Frame& frame(int32_t f) const { return frames_[f]; }
  int32_t num_configs() const { return configs_.size(); }
  int32_t num_frames() const { return frames_.size(); }
  size_t memory_bytes() const { return bytes_; }
  void add_memory(size_t bytes) { bytes_ += bytes; }

  // The step if it is known, else kUnknown. Takes no lock.
  int32_t known_step(int32_t c, uint8_t b) const {
    const Config& config = configs_[c];
    if (const auto* row = config.row.load(std::memory_order_acquire))
      return row[b].load(std::memory_order_acquire);
    for (const auto* e = config.steps.load(std::memory_order_acquire); e; e = e->next)
      if (e->byte == b) return e->to;
    return kUnknown;
  }

  // ---- with the engine's lock ------------------------------------------------------------------
  Meter meter;
  int32_t step(int32_t c, uint8_t b) {
    const int32_t known = known_step(c, b);
    return known != kUnknown ? known : take_step(c, b);
  }
  // Whether a byte leads anywhere from a configuration: the step need not be taken to tell.
  bool is_live(int32_t c, uint8_t b) {
    const Config& config = configs_[c];
    for (int32_t i = 0; i < config.count; ++i)
      if (states_.get(config.items[i].state).live[b]) return true;
    return false;
  }
  std::bitset<256> live(int32_t c) {
    std::bitset<256> bytes;
    const Config& config = configs_[c];
    for (int32_t i = 0; i < config.count; ++i) bytes |= states_.get(config.items[i].state).live;
    return bytes;
  }
  // After one whole token: by its bytes, or by an edge of one of the sets it is in.
  int32_t step_token_edges(int32_t c, const std::vector<bool>& in_set, int32_t by_bytes);
  int32_t popped(int32_t frame);               // after the rule above a frame has ended
  int32_t clamped(int32_t config);             // counts capped
  int32_t lone(const Item* chain, int count);  // a configuration of one item, not closed: see mask
  int32_t clamped_frame(int32_t frame);
  const Alphabet& loop(int32_t config);  // bytes b with step(config, b) == config
  Alphabet loop_from(int32_t from, int32_t onto);
  int32_t import(const Arena& other, int32_t config);  // the same configuration here
  States& states() { return states_; }
  int32_t longest() const { return longest_; }

 private:
  int32_t take_step(int32_t c, uint8_t b);
  void fill_row(int32_t c);
  int32_t close(bool is_accepting);  // of kernel_
  void visit_kernel(Item item, bool& is_accepting);
  void add_call(int32_t rule, int32_t to, int32_t frame);
  void drop_dominated(std::vector<Item>& items);
  int32_t intern_frame(std::vector<Item>& items);
  int32_t intern_config(std::vector<Item>& items, bool is_accepting);
  const Item* keep(const std::vector<Item>& items);
  int32_t import_frame(const Arena& other, int32_t frame,
                       std::unordered_map<int32_t, int32_t>& done);
  bool wide_loops(int32_t from, int utf8, int32_t onto);

  // Ids by content: open addressing.
  struct Table {
    std::vector<int32_t> slots = std::vector<int32_t>(1024, kNone);
    int32_t used = 0;
  };
  template <typename Same, typename HashOf>
  int32_t& find(Table& table, uint64_t hash, const Same& same, const HashOf& hash_of);

  struct Pending {
    int32_t rule, rank;
    std::vector<Item> items;
  };

  States& states_;
  int32_t longest_;
  Stable<Frame> frames_;
  Stable<Config> configs_;
  Table frame_ids_, config_ids_;
  std::vector<std::unique_ptr<Item[]>> blocks_;
  size_t block_left_ = 0;
  std::vector<std::unique_ptr<std::atomic<int32_t>[]>> rows_;
  std::vector<std::unique_ptr<StepEdge[]>> edges_;
  size_t edges_left_ = 0;
  std::vector<std::unique_ptr<Alphabet>> loops_;
  size_t bytes_ = 0;
  int32_t root_ = 0;
  // Scratch of close().
  std::vector<Item> kernel_, items_;
  std::vector<Pending> pending_;
  size_t num_pending_ = 0;
};
}  // namespace lmx::grammar
