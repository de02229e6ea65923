// grammar/host/arena.cpp
#include "arena.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "charset.h"
#include "mask.h"

namespace lmx::grammar {
namespace {
constexpr int32_t kMaxItems = 4096;
constexpr int kFewSteps = 4;  // then a configuration gets its row of 256
constexpr size_t kBlock = 4096;

uint64_t hash_items(const Item* items, int32_t count, uint64_t seed) {
  uint64_t h = seed ^ (static_cast<uint64_t>(count) << 32);
  for (int32_t i = 0; i < count; ++i) {
    h ^= static_cast<uint64_t>(static_cast<uint32_t>(items[i].state)) << 32 |
         static_cast<uint32_t>(items[i].frame);
    h *= 0x9E3779B97F4A7C15ull;
    h ^= h >> 29;
  }
  return h;
}
uint64_t config_seed(bool is_accepting) { return is_accepting ? 0xC2B2AE3D27D4EB4Full : 1; }
}  // namespace

void Meter::check() const {
  if (steps_left < 0) throw GrammarLimitError("grammar: the budget of steps is used up");
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  if (deadline_ns && std::chrono::nanoseconds(now).count() > deadline_ns)
    throw GrammarLimitError("grammar: limit_ms is used up");
}

Arena::Arena(States& states, int32_t longest) : states_(states), longest_(std::max(longest, 1)) {
  meter.steps_left = int64_t{1} << 40;
  std::vector<Item> bottom{{kDone, kBottom}};
  intern_frame(bottom);
  const Program& program = states.program();
  kernel_ = {{states.start_of(program.root), kBottom}};
  if (kernel_[0].state == kNone) kernel_.clear();  // only the empty string
  root_ = close(program.rules[program.root].nullable);
}

Arena::~Arena() {
  for (int32_t c = 0; c < configs_.size(); ++c) delete configs_[c].mask.load();
}

// ---- content to id ---------------------------------------------------------------------------
template <typename Same, typename HashOf>
int32_t& Arena::find(Table& table, uint64_t hash, const Same& same, const HashOf& hash_of) {
  if (2 * static_cast<size_t>(table.used) >= table.slots.size()) {
    std::vector<int32_t> old(2 * table.slots.size(), kNone);
    old.swap(table.slots);
    for (const int32_t id : old) {
      if (id == kNone) continue;
      size_t i = hash_of(id) & (table.slots.size() - 1);
      while (table.slots[i] != kNone) i = (i + 1) & (table.slots.size() - 1);
      table.slots[i] = id;
    }
    bytes_ += old.size() * sizeof(int32_t);
  }
  size_t i = hash & (table.slots.size() - 1);
  while (table.slots[i] != kNone && !same(table.slots[i])) i = (i + 1) & (table.slots.size() - 1);
  return table.slots[i];
}

const Item* Arena::keep(const std::vector<Item>& items) {
  if (items.size() > block_left_) {
    const size_t size = std::max(kBlock, items.size());
    blocks_.push_back(std::make_unique<Item[]>(size));
    block_left_ = size;
    bytes_ += size * sizeof(Item);
  }
  // A block is filled from its end.
  Item* to = blocks_.back().get() + (block_left_ -= items.size());
  std::copy(items.begin(), items.end(), to);
  return to;
}

// Of members that differ only in their counts, one whose continuations contain another's stays.
void Arena::drop_dominated(std::vector<Item>& items) {
  if (!states_.program().has_counters) return;
  const auto beaten = [&](const Item& b) {
    if (b.state < 0 || !states_.is_counted(b.state)) return false;
    const State& sb = states_.get(b.state);
    for (const Item& a : items) {
      if (a == b || a.frame != b.frame || a.state < 0 || !states_.is_counted(a.state)) continue;
      const State& sa = states_.get(a.state);
      if (sa.rule == sb.rule && !sa.is_start && !sb.is_start && sa.needed <= sb.needed &&
          sa.allowed >= sb.allowed)
        return true;
    }
    return false;
  };
  std::vector<Item> kept;
  for (const Item& item : items)
    if (!beaten(item)) kept.push_back(item);
  items.swap(kept);
}

int32_t Arena::intern_frame(std::vector<Item>& items) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  if (items.size() > 1) drop_dominated(items);
  const auto count = static_cast<int32_t>(items.size());
  if (count > kMaxItems) throw GrammarLimitError("grammar: more than 4096 callers at one place");
  const auto hash_of = [&](int32_t f) { return hash_items(frames_[f].items, frames_[f].count, 0); };
  int32_t& slot = find(
      frame_ids_, hash_items(items.data(), count, 0),
      [&](int32_t f) {
        return frames_[f].count == count &&
               std::equal(items.begin(), items.end(), frames_[f].items);
      },
      hash_of);
  if (slot != kNone) return slot;
  const int32_t id = frames_.add();
  Frame& frame = frames_[id];
  frame.items = keep(items);
  frame.count = count;
  frame.has_counts = false;
  for (const Item& item : items)
    if (item.state >= 0)
      frame.has_counts |= states_.is_counted(item.state) || frames_[item.frame].has_counts;
  bytes_ += sizeof(Frame) + 8;
  ++frame_ids_.used;
  return slot = id;
}

int32_t Arena::intern_config(std::vector<Item>& items, bool is_accepting) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  const auto count = static_cast<int32_t>(items.size());
  if (count == 0 && !is_accepting) return kNone;
  const auto hash_of = [&](int32_t c) {
    return hash_items(configs_[c].items, configs_[c].count, config_seed(configs_[c].is_accepting));
  };
  int32_t& slot = find(
      config_ids_, hash_items(items.data(), count, config_seed(is_accepting)),
      [&](int32_t c) {
        return configs_[c].count == count && configs_[c].is_accepting == is_accepting &&
               std::equal(items.begin(), items.end(), configs_[c].items);
      },
      hash_of);
  if (slot != kNone) return slot;
  const int32_t id = configs_.add();
  Config& config = configs_[id];
  config.items = keep(items);
  config.count = count;
  config.is_accepting = is_accepting;
  config.has_tokens = config.has_counts = false;
  for (const Item& item : items) {
    config.has_tokens |= !states_.get(item.state).tokens.empty();
    config.has_counts |= states_.is_counted(item.state) || frames_[item.frame].has_counts;
  }
  bytes_ += sizeof(Config) + 8;
  ++config_ids_.used;
  return slot = id;
}

// ---- closure ---------------------------------------------------------------------------------
void Arena::add_call(int32_t rule, int32_t to, int32_t frame) {
  size_t i = 0;
  while (i < num_pending_ && pending_[i].rule != rule) ++i;
  if (i == num_pending_) {
    if (++num_pending_ > pending_.size()) pending_.emplace_back();
    pending_[i].rule = rule;
    pending_[i].rank = states_.program().rules[rule].rank;
    pending_[i].items.clear();
  }
  auto& items = pending_[i].items;
  if (states_.get(to).is_end) {  // a tail call: the stack does not grow
    const Frame& below = frames_[frame];
    items.insert(items.end(), below.items, below.items + below.count);
  } else {
    items.push_back({to, frame});
  }
}

// An item that has just been reached by a byte or a return; states whose rule may end return.
void Arena::visit_kernel(Item item, bool& is_accepting) {
  const State& state = states_.get(item.state);
  if (state.is_final) {
    const Frame& frame = frames_[item.frame];
    for (int32_t i = 0; i < frame.count; ++i) {
      const Item& back = frame.items[i];
      if (back.state == kDone)
        is_accepting = true;
      else if (std::find(kernel_.begin(), kernel_.end(), back) == kernel_.end())
        kernel_.push_back(back);
    }
    if (kernel_.size() > static_cast<size_t>(kMaxItems))
      throw GrammarLimitError("grammar: more than 4096 ways to read one prefix");
  }
  if (state.has_bytes || !state.tokens.empty()) items_.push_back(item);
  for (const CallEdge& call : state.calls) add_call(call.rule, call.to, item.frame);
}

int32_t Arena::close(bool is_accepting) {
  items_.clear();
  num_pending_ = 0;
  if (kernel_.size() > 1) {
    std::sort(kernel_.begin(), kernel_.end());
    kernel_.erase(std::unique(kernel_.begin(), kernel_.end()), kernel_.end());
  }
  for (size_t i = 0; i < kernel_.size(); ++i)  // grows by returns
    visit_kernel(kernel_[i], is_accepting);
  if (states_.program().has_counters && kernel_.size() > 1) {  // again, without the dominated
    const size_t before = kernel_.size();
    drop_dominated(kernel_);
    if (kernel_.size() < before) {
      items_.clear();
      num_pending_ = 0;
      const std::vector<Item> kernel = kernel_;
      for (const Item& item : kernel) visit_kernel(item, is_accepting);
      kernel_ = kernel;
    }
  }
  while (num_pending_ > 0) {  // callers before callees, so that a frame is whole when it is made
    size_t first = 0;
    for (size_t i = 1; i < num_pending_; ++i)
      if (pending_[i].rank < pending_[first].rank) first = i;
    std::swap(pending_[first], pending_[--num_pending_]);
    std::vector<Item> items;
    items.swap(pending_[num_pending_].items);
    const int32_t rule = pending_[num_pending_].rule;
    const int32_t start = states_.start_of(rule), frame = intern_frame(items);
    const State& state = states_.get(start);
    if (state.has_bytes || !state.tokens.empty()) items_.push_back({start, frame});
    for (const CallEdge& call : state.calls) add_call(call.rule, call.to, frame);
    if (items_.size() > static_cast<size_t>(kMaxItems))
      throw GrammarLimitError("grammar: more than 4096 ways to read one prefix");
  }
  return intern_config(items_, is_accepting);
}

// ---- steps -----------------------------------------------------------------------------------
int32_t Arena::take_step(int32_t c, uint8_t b) {
  Config& config = configs_[c];
  int num_steps = 0;
  for (const auto* e = config.steps.load(std::memory_order_relaxed); e; e = e->next) ++num_steps;
  if (num_steps >= kFewSteps) {
    fill_row(c);
    return config.row.load(std::memory_order_relaxed)[b].load(std::memory_order_relaxed);
  }
  meter.spend();
  kernel_.clear();
  for (int32_t i = 0; i < config.count; ++i) {
    const State& state = states_.get(config.items[i].state);
    const int32_t to = state.next ? state.next[b] : kNone;
    if (to != kNone) kernel_.push_back({to, config.items[i].frame});
  }
  const int32_t to = kernel_.empty() ? kNone : close(false);
  if (edges_left_ == 0) {
    edges_.push_back(std::make_unique<StepEdge[]>(kBlock));
    edges_left_ = kBlock;
    bytes_ += kBlock * sizeof(StepEdge);
  }
  StepEdge* edge = edges_.back().get() + --edges_left_;
  *edge = {to, b, config.steps.load(std::memory_order_relaxed)};
  config.steps.store(edge, std::memory_order_release);
  return to;
}

// All 256 steps at once; bytes that lead the items to the same states are taken together.
void Arena::fill_row(int32_t c) {
  Config& config = configs_[c];
  auto row = std::make_unique<std::atomic<int32_t>[]>(256);
  std::vector<const int32_t*> next;
  std::vector<int32_t> frames;
  std::array<uint64_t, 256> kind{};  // a hash of where they lead
  for (int32_t i = 0; i < config.count; ++i) {
    const State& state = states_.get(config.items[i].state);
    if (!state.next) continue;
    next.push_back(state.next.get());
    frames.push_back(config.items[i].frame);
    for (int b = 0; b < 256; ++b)
      kind[b] = kind[b] * 0x9E3779B97F4A7C15ull + static_cast<uint32_t>(next.back()[b] + 1);
  }
  std::array<int16_t, 512> first_of;  // by hash: the first byte of each kind
  first_of.fill(-1);
  for (int b = 0; b < 256; ++b) {
    const auto same = [&](int other) {
      for (const int32_t* to : next)
        if (to[b] != to[other]) return false;
      return true;
    };
    size_t slot = (kind[b] * 0xD6E8FEB86659FD93ull) >> 55;
    while (first_of[slot] >= 0 && !(kind[b] == kind[first_of[slot]] && same(first_of[slot])))
      slot = (slot + 1) & (first_of.size() - 1);
    if (first_of[slot] >= 0) {
      row[b].store(row[first_of[slot]].load(std::memory_order_relaxed), std::memory_order_relaxed);
      continue;
    }
    first_of[slot] = static_cast<int16_t>(b);
    kernel_.clear();
    for (size_t i = 0; i < next.size(); ++i)
      if (next[i][b] != kNone) kernel_.push_back({next[i][b], frames[i]});
    if (!kernel_.empty()) meter.spend();
    row[b].store(kernel_.empty() ? kNone : close(false), std::memory_order_relaxed);
  }
  bytes_ += 256 * sizeof(int32_t);
  config.row.store(row.get(), std::memory_order_release);
  rows_.push_back(std::move(row));
}

int32_t Arena::step_token_edges(int32_t c, const std::vector<bool>& in_set, int32_t by_bytes) {
  const Config& config = configs_[c];
  kernel_.clear();
  for (int32_t i = 0; i < config.count; ++i)
    for (const TokenEdge& e : states_.get(config.items[i].state).tokens)
      if (in_set[e.set]) kernel_.push_back({e.to, config.items[i].frame});
  if (kernel_.empty()) return by_bytes;
  const int32_t by_edges = close(false);
  if (by_bytes == kNone || by_bytes == by_edges) return by_edges;
  const Config &a = configs_[by_bytes], &b = configs_[by_edges];
  std::vector<Item> items(a.items, a.items + a.count);
  items.insert(items.end(), b.items, b.items + b.count);
  return intern_config(items, a.is_accepting || b.is_accepting);
}

int32_t Arena::popped(int32_t f) {
  if (frames_[f].popped == kUnknown) {
    bool is_accepting = false;
    kernel_.clear();
    for (int32_t i = 0; i < frames_[f].count; ++i) {
      if (frames_[f].items[i].state == kDone)
        is_accepting = true;
      else
        kernel_.push_back(frames_[f].items[i]);
    }
    const int32_t config = close(is_accepting);
    frames_[f].popped = config;
  }
  return frames_[f].popped;
}

// ---- counts ----------------------------------------------------------------------------------
int32_t Arena::clamped_frame(int32_t f) {
  // Frames below have smaller ids: from the bottom up, without recursion.
  std::vector<int32_t> stack{f};
  while (!stack.empty()) {
    const int32_t at = stack.back();
    Frame& frame = frames_[at];
    if (!frame.has_counts) frame.clamped = at;
    if (frame.clamped != kUnknown) {
      stack.pop_back();
      continue;
    }
    const size_t before = stack.size();
    for (int32_t i = 0; i < frame.count; ++i)
      if (frame.items[i].state >= 0 && frames_[frame.items[i].frame].clamped == kUnknown)
        stack.push_back(frame.items[i].frame);
    if (stack.size() > before) continue;
    std::vector<Item> items;
    for (int32_t i = 0; i < frame.count; ++i) {
      const Item& item = frame.items[i];
      items.push_back(item.state < 0 ? item
                                     : Item{states_.clamped(item.state, longest_),
                                            frames_[item.frame].clamped});
    }
    const int32_t id = intern_frame(items);
    frames_[at].clamped = id;
    frames_[id].clamped = id;
    stack.pop_back();
  }
  return frames_[f].clamped;
}

int32_t Arena::clamped(int32_t c) {
  Config& config = configs_[c];
  if (!config.has_counts) return c;
  if (config.clamped == kUnknown) {
    std::vector<Item> items;
    for (int32_t i = 0; i < config.count; ++i)
      items.push_back(
          {states_.clamped(config.items[i].state, longest_), clamped_frame(config.items[i].frame)});
    const int32_t id = intern_config(items, config.is_accepting);
    configs_[c].clamped = id;
    configs_[id].clamped = id;
  }
  return config.clamped;
}

// ---- parts for masks -------------------------------------------------------------------------
int32_t Arena::lone(const Item* chain, int count) {
  int32_t frame = kBottom;
  for (int i = count - 1; i > 0; --i) {
    std::vector<Item> one{{chain[i].state, frame}};
    frame = intern_frame(one);
  }
  std::vector<Item> items{{chain[0].state, frame}};
  return intern_config(items, false);
}

bool Arena::wide_loops(int32_t from, int utf8, int32_t onto) {
  for (int b = 0x80; b < 0xF8; ++b) {
    const int after = utf8_step(utf8, static_cast<uint8_t>(b));
    if (after < 0) continue;
    const int32_t to = step(from, static_cast<uint8_t>(b));
    if (to == kNone) return false;
    if (after == 0 ? to != onto : !wide_loops(to, after, onto)) return false;
    if (after == 0 || utf8 != 0) {  // the other tails behave alike if they lead to the same place
      bool same = true;
      for (int d = b + 1; d < 0xC0 && same; ++d) {
        const auto byte = static_cast<uint8_t>(d);
        const int other = utf8_step(utf8, byte);
        same = other < 0 || (other == after && step(from, byte) == to);
      }
      if (same) return true;
    }
  }
  return true;
}

Alphabet Arena::loop_from(int32_t from, int32_t onto) {
  Alphabet a;
  for (int b = 0; b < 128; ++b)
    if (step(from, static_cast<uint8_t>(b)) == onto)
      (b < 64 ? a.ascii_lo : a.ascii_hi) |= uint64_t{1} << (b & 63);
  a.has_wide = a.count() > 0 && wide_loops(from, 0, onto);
  return a;
}

const Alphabet& Arena::loop(int32_t c) {
  if (!configs_[c].loop) {
    loops_.push_back(std::make_unique<Alphabet>(loop_from(c, c)));
    configs_[c].loop = loops_.back().get();
    bytes_ += sizeof(Alphabet) + 8;
  }
  return *configs_[c].loop;
}

// ---- moving house ----------------------------------------------------------------------------
int32_t Arena::import_frame(const Arena& other, int32_t f,
                            std::unordered_map<int32_t, int32_t>& done) {
  std::vector<int32_t> stack{f};
  while (!stack.empty()) {
    const int32_t at = stack.back();
    if (done.contains(at)) {
      stack.pop_back();
      continue;
    }
    const Frame& frame = other.frames_[at];
    std::vector<Item> items(frame.items, frame.items + frame.count);
    const size_t before = stack.size();
    for (Item& item : items) {
      if (item.state == kDone) continue;
      if (const auto known = done.find(item.frame); known != done.end())
        item.frame = known->second;
      else
        stack.push_back(item.frame);
    }
    if (stack.size() > before) continue;
    done[at] = intern_frame(items);
    stack.pop_back();
  }
  return done[f];
}

int32_t Arena::import(const Arena& other, int32_t c) {
  std::unordered_map<int32_t, int32_t> done{{kBottom, kBottom}};
  const Config& config = other.configs_[c];
  std::vector<Item> items(config.items, config.items + config.count);
  for (Item& item : items) item.frame = import_frame(other, item.frame, done);
  return intern_config(items, config.is_accepting);
}
}  // namespace lmx::grammar
