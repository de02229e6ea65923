// grammar/host/mask.cpp
#include "mask.h"

#include <algorithm>
#include <cstring>

#include "charset.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxIds = 1000;  // a longer list becomes bits
constexpr size_t kCheapIds = 64;  // so many bits set one by one beat a second copy of a row
constexpr int kMaxChain = 4;      // counted rules that are walked together with their body
constexpr int kMaxEntered = 40;   // tables within tables
constexpr int32_t kSmallTrie = 512;
}  // namespace

// What is worth a table, or a list of rests. Where all tokens are few everything is, so that
// exhaustive tests of small grammars come along every path.
Masks::Worth Masks::worth_of(const Vocabulary& vocabulary) {
  if (vocabulary.trie().num_nodes() < kSmallTrie)
    return {.first = 1, .alphabet = 1, .below = 2, .rests = 12};
  return {.first = 4, .alphabet = 12, .below = 512, .rests = 2000};
}

// Down the stack ever fewer rests are walked on, and no token returns through many frames.
size_t Masks::most_rests(int depth) const {
  return depth < 100 ? std::max(worth_.rests >> std::min(depth, 16), worth_.rests / 32) : 0;
}

// ---- token sets ------------------------------------------------------------------------------
void TokenSetBuilder::make_bits() {
  if (own_) return;
  own_ = shared_ ? std::make_shared<Bits>(*shared_) : std::make_shared<Bits>(num_words_, 0);
  shared_ = nullptr;
  for (const int32_t t : ids_) set_bit(own_->data(), t);
  ids_.clear();
}

void TokenSetBuilder::add(const int32_t* begin, const int32_t* end) {
  if (!own_ && ids_.size() + (end - begin) > kMaxIds) make_bits();
  if (!own_) return static_cast<void>(ids_.insert(ids_.end(), begin, end));
  for (uint32_t* words = own_->data(); begin < end; ++begin) set_bit(words, *begin);
}

void TokenSetBuilder::add(const std::shared_ptr<const Bits>& bits) {
  if (!own_ && !shared_) return static_cast<void>(shared_ = bits);
  make_bits();
  uint32_t* to = own_->data();
  const uint32_t* from = bits->data();
  for (int32_t w = 0; w < num_words_; ++w) to[w] |= from[w];
}

TokenSet TokenSetBuilder::build() {
  ids_.shrink_to_fit();
  if (own_) return {std::move(own_), {}};
  return {std::move(shared_), std::move(ids_)};
}

Masks::Masks(Arena& arena, const Vocabulary& vocabulary, const std::vector<Bits>& token_sets)
    : arena_(arena),
      vocabulary_(vocabulary),
      token_sets_(token_sets),
      worth_(worth_of(vocabulary)) {
  edge_sets_.resize(token_sets.size());
}

void Masks::account(const TokenSet& set) {
  const bool is_own = set.bits && set.bits.use_count() == 1;
  arena_.add_memory(set.ids.size() * 4 + sizeof(TokenSet) + 64 +
                    (is_own ? set.bits->size() * 4 : 0));
}

// ---- the walk --------------------------------------------------------------------------------
struct Masks::Walk {
  struct Level {  // what is known at a depth of the trie, on the way to the node at hand
    int32_t config;
    const std::atomic<int32_t>* row;  // its steps; null: not made yet
    bool is_covered;                  // the string since the base's node is in the base's table
    bool is_end;                      // the rule may end here
  };
  std::vector<Level> levels;
  std::vector<int32_t> ends;  // depths at which the rule may end and the byte there may follow it
  std::vector<Rest> rests;
  TokenSetBuilder accepted;
  const std::bitset<256>* follow;  // of the rule; null: the configuration is a whole one
  struct Region {                  // nodes before `end` are below one with a base
    const Base* base;
    int32_t depth, end;
  };
  std::vector<Region> regions;
  int num_entered = 0;  // tables of nodes above

  Walk(const Vocabulary& vocabulary, const std::bitset<256>* follow_of_rule)
      : levels(vocabulary.longest() + 1),
        accepted(vocabulary.num_words()),
        follow(follow_of_rule) {}

  void set(int32_t depth, int32_t config, const Arena& arena, bool is_covered) {
    const Config& c = arena.config(config);
    levels[depth] = {config, c.row.load(std::memory_order_relaxed), is_covered,
                     follow && c.is_accepting};
  }
  // On the way from depth d by byte b to a node.
  void leave_ends(int32_t d) {
    while (!ends.empty() && ends.back() >= d) ends.pop_back();
  }
  void pass_end(int32_t d, uint8_t b) {
    if (levels[d].is_end && (*follow)[b]) ends.push_back(d);
  }
  // Nothing at or below the node can be read: what is left behind each end is kept.
  void keep(int32_t node) {
    for (const int32_t end : ends) rests.push_back({node, end});
  }
};

// Where most bytes lead from a configuration, if that stays where it is over an alphabet.
Masks::Base Masks::find_base(int32_t from) {
  std::vector<std::pair<int32_t, int>> counts;
  Base base;
  if (arena_.live(from).count() < static_cast<size_t>(worth_.first)) return base;
  int best = 0;
  for (int b = 0; b < 128; ++b) {
    const int32_t to = arena_.step(from, static_cast<uint8_t>(b));
    if (to == kNone) continue;
    size_t i = 0;
    while (i < counts.size() && counts[i].first != to) ++i;
    if (i == counts.size()) counts.push_back({to, 0});
    if (++counts[i].second > best) best = counts[i].second, base.onto = to;
  }
  if (best < worth_.first) return {};
  base.rest = arena_.loop(base.onto);
  if (base.rest.count() < worth_.alphabet) return {};
  base.first = base.onto == from ? base.rest : arena_.loop_from(from, base.onto);
  base.first.ascii_lo &= base.rest.ascii_lo;
  base.first.ascii_hi &= base.rest.ascii_hi;
  base.first.has_wide &= base.rest.has_wide;
  return base.first.count() < worth_.first ? Base{} : base;
}

const Masks::Base& Masks::base_of(int32_t from) {
  const auto [it, is_new] = bases_.try_emplace(from);
  if (is_new) {
    const Base base = find_base(from);
    return bases_[from] = base;
  }
  return it->second;
}

// At a node with much below it, whose configuration is set: what its base accepts is not walked.
// True if nothing below is left to be walked.
bool Masks::enter(int32_t node, Walk& w) {
  const TokenTrie::Node& n = vocabulary_.trie().nodes[node];
  auto& level = w.levels[n.depth];
  const Base& base = base_of(level.config);
  if (base.onto == kNone || w.num_entered >= kMaxEntered) return false;
  level.row = arena_.config(level.config).row.load(std::memory_order_relaxed);
  const auto table = vocabulary_.within(node, base.first, base.rest);
  w.accepted.add(table->ids.data(), table->ids.data() + table->ids.size());
  if (!table->bits.empty()) w.accepted.add(std::shared_ptr<const Bits>(table, &table->bits));
  const auto follows = [&](const Alphabet& alphabet) {
    for (int b = 0; b < 256; ++b)
      if ((*w.follow)[b] && alphabet.has(static_cast<uint8_t>(b))) return true;
    return false;
  };
  if ((level.is_end && follows(base.first)) ||
      (w.follow && arena_.config(base.onto).is_accepting && follows(base.rest))) {
    level.is_covered = true;  // the rule may end within the table: its nodes are visited
    w.regions.push_back({&base, n.depth, node + n.size});
    return false;
  }
  ++w.num_entered;
  leave(node, base, *table, w);
  --w.num_entered;
  return true;
}

// Tokens that begin with a byte that can be read and is not left out.
template <typename IsOut>
void Masks::walk_root(Walk& w, const IsOut& is_out) {
  const TokenTrie& trie = vocabulary_.trie();
  const int32_t from = w.levels[0].config;
  const std::bitset<256> live = arena_.live(from);
  for (int b = 0; b < 256; ++b) {
    const int32_t i = trie.child_of_root[b];
    if (!i || !live[b] || is_out(static_cast<uint8_t>(b))) continue;
    w.set(0, from, arena_, false);
    walk_below(i, i + trie.nodes[i].size, w);
    w.ends.clear();
    w.regions.clear();
  }
}

// What is below a node and not in its base's table.
void Masks::leave(int32_t node, const Base& base, const Vocabulary::Within& table, Walk& w) {
  const auto& nodes = vocabulary_.trie().nodes;
  const int32_t top = nodes[node].depth, from = w.levels[top].config;
  const size_t num_ends = w.ends.size(), num_regions = w.regions.size();
  const auto walk = [&](int32_t i, int32_t depth, int32_t config) {
    w.set(depth, config, arena_, false);
    if (depth + 1 < nodes[i].depth)
      walk_rest({i, depth}, config, w);
    else
      walk_below(i, i + nodes[i].size, w);
    w.ends.resize(num_ends);
    w.regions.resize(num_regions);
  };
  const auto is_in = [&](uint8_t b) { return base.first.has(b) && utf8_step(0, b) >= 0; };
  if (node == 0)
    walk_root(w, is_in);
  else
    for (int32_t i = node + 1; i < node + nodes[node].size; i += nodes[i].size)
      if (!is_in(nodes[i].byte)) walk(i, top, from);
  const bool is_end = w.follow && arena_.config(base.onto).is_accepting;
  for (int b = 0; b < 256; ++b) {
    const int32_t begin = table.first_exit[b], end = table.first_exit[b + 1];
    if (begin == end) continue;
    const bool is_live = arena_.step(base.onto, static_cast<uint8_t>(b)) != kNone;
    if (!is_live && num_ends == 0 && !(is_end && (*w.follow)[b])) continue;
    if (is_live)
      w.accepted.add(table.tokens.data() + table.first_token[b],
                     table.tokens.data() + table.first_token[b + 1]);
    for (int32_t k = begin; k < (is_live ? table.first_leaf[b] : end); ++k)
      walk(table.exits[k], nodes[table.exits[k]].depth - 1, base.onto);
  }
  for (const auto& cut : table.cuts) walk(cut.node, cut.begin, cut.begin == top ? from : base.onto);
}

// Nodes [begin, end), whose parents' configurations are known.
void Masks::walk_below(int32_t begin, int32_t end, Walk& w) {
  const TokenTrie& trie = vocabulary_.trie();
  const TokenTrie::Node* nodes = trie.nodes.data();
  const int32_t* tokens = trie.tokens.data();
  int visited = 0;
  for (int32_t i = begin; i < end;) {
    const TokenTrie::Node n = nodes[i];
    const int32_t d = n.depth - 1;  // of the parent
    Walk::Level& at = w.levels[d];
    if ((++visited & 4095) == 0) arena_.meter.check();
    while (!w.regions.empty() && i >= w.regions.back().end) w.regions.pop_back();
    bool is_covered = false;
    if (at.is_covered) {
      const Walk::Region& region = w.regions.back();
      const Base& base = *region.base;
      is_covered = (d == region.depth ? base.first : base.rest).has(n.byte);
      if (is_covered && (d == region.depth || at.config == base.onto) &&
          base.rest.covers(trie.content[i])) {
        i += n.size;
        continue;
      }
    }
    int32_t to;
    if (at.row) {
      to = at.row[n.byte].load(std::memory_order_relaxed);
    } else if (!arena_.is_live(at.config, n.byte)) {
      to = kNone;
    } else {
      to = arena_.step(at.config, n.byte);
      at.row = arena_.config(at.config).row.load(std::memory_order_relaxed);
    }
    if (w.follow) {
      w.leave_ends(d);
      w.pass_end(d, n.byte);
      if (to == kNone) w.keep(i);
    }
    if (to == kNone) {
      i += n.size;
      continue;
    }
    if (n.size > 4 && (to == at.config || arena_.config(at.config).loop) &&
        arena_.loop(at.config).covers(trie.content[i])) {  // all below stays here
      w.accepted.add(tokens + n.first, tokens + nodes[i + n.size].first);
      i += n.size;
      continue;
    }
    w.set(n.depth, to, arena_, is_covered);
    if (!is_covered) {
      if (nodes[i + 1].first > n.first)
        w.accepted.add(tokens + n.first, tokens + nodes[i + 1].first);
      if (n.size >= worth_.below && enter(i, w)) {
        i += n.size;
        continue;
      }
    }
    ++i;
  }
}

void Masks::walk_all(int32_t from, Walk& w) {
  w.set(0, from, arena_, false);
  if (enter(0, w)) return;
  if (w.levels[0].is_covered)
    walk_below(1, vocabulary_.trie().num_nodes(), w);
  else
    walk_root(w, [](uint8_t) { return false; });
}

// The bytes from the offset up to the node's parent, then the node and all below.
void Masks::walk_rest(Rest rest, int32_t from, Walk& w) {
  const TokenTrie& trie = vocabulary_.trie();
  const TokenTrie::Node& node = trie.nodes[rest.node];
  const std::string_view path = vocabulary_.bytes(trie.tokens[node.first]);
  w.set(rest.offset, from, arena_, false);
  for (int32_t d = rest.offset; d < node.depth - 1; ++d) {
    const auto b = static_cast<uint8_t>(path[d]);
    const int32_t to = arena_.step(w.levels[d].config, b);
    if (w.follow) w.pass_end(d, b);
    if (to == kNone) return w.keep(rest.node);
    w.set(d + 1, to, arena_, false);
  }
  walk_below(rest.node, rest.node + node.size, w);
}

// Equal lists are one: states that differ in their counts leave the same rests.
const Masks::Rests* Masks::intern(std::vector<Rest> list) {
  uint64_t h = list.size();
  for (const Rest& rest : list) h = (h ^ key(rest.node, rest.offset)) * 0x9E3779B97F4A7C15ull;
  const auto [begin, end] = rests_by_hash_.equal_range(h);
  for (auto it = begin; it != end; ++it)
    if (it->second->list == list) return it->second;
  arena_.add_memory(list.size() * sizeof(Rest) + sizeof(Rests) + 64);
  list.shrink_to_fit();
  all_rests_.push_back({static_cast<int32_t>(all_rests_.size()) + 1, std::move(list)});
  return rests_by_hash_.emplace(h, &all_rests_.back())->second;
}

// ---- down the stack --------------------------------------------------------------------------
// `below` is the frame under what was walked: the item's own, or one under the counted rules there.
const Masks::Local& Masks::local(const Rests& rests, Item item, int32_t& below) {
  Item chain[kMaxChain]{item};
  int count = 1;
  States& states = arena_.states();
  int32_t frame = item.frame;
  while (count < kMaxChain) {
    const Frame& f = arena_.frame(frame);
    if (f.count != 1 || f.items[0].state < 0 || !states.is_counted(f.items[0].state)) break;
    chain[count++] = f.items[0];
    frame = f.items[0].frame;
  }
  below = frame;
  const int32_t from = arena_.lone(chain, count);
  auto& slot = locals_[key(rests.id, from)];
  if (slot) return *slot;
  auto made = std::make_unique<Local>();
  const int32_t rule = states.get(chain[count - 1].state).rule;
  Walk w(vocabulary_, &states.program().rules[rule].follow);
  if (rests.id == everything_.id)
    walk_all(from, w);
  else
    for (const Rest rest : rests.list) {
      w.ends.clear();
      walk_rest(rest, from, w);
    }
  auto& list = w.rests;
  // A rest within another one says nothing new.
  std::sort(list.begin(), list.end(), [](const Rest& a, const Rest& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.node < b.node;
  });
  int32_t offset = kNone, end = 0;
  std::erase_if(list, [&](const Rest& rest) {
    if (rest.offset == offset && rest.node < end) return true;
    offset = rest.offset;
    end = rest.node + vocabulary_.trie().nodes[rest.node].size;
    return false;
  });
  made->is_open = list.size() > worth_.rests;
  if (!made->is_open) {
    made->accepted = w.accepted.build();
    made->rests = intern(std::move(list));
  }
  arena_.add_memory(sizeof(Local) + 64);
  account(made->accepted);
  return *(locals_[key(rests.id, from)] = std::move(made));
}

// The tokens whose rests can be read after the rule above a frame has ended; null: too many rests.
const TokenSet* Masks::rests(const Rests& given, int32_t frame, int depth) {
  const uint64_t k = key(given.id, frame);
  if (const auto found = rests_.find(k); found != rests_.end()) return found->second.get();
  arena_.meter.spend();
  TokenSetBuilder set(vocabulary_.num_words());
  const int32_t after = arena_.popped(frame);
  bool is_open = given.list.size() > most_rests(depth);
  if (after != kNone) {
    const Config& config = arena_.config(after);
    const auto add = [&](const TokenSet& more) {
      if (more.bits) set.add(more.bits);
      set.add(more.ids.data(), more.ids.data() + more.ids.size());
    };
    for (int32_t i = 0; i < config.count && !is_open; ++i) {
      int32_t below;
      const Local& part = local(given, config.items[i], below);
      is_open = part.is_open;
      if (is_open) break;
      add(part.accepted);
      if (part.rests->list.empty()) continue;
      const TokenSet* more = rests(*part.rests, below, depth + 1);
      is_open = !more;
      if (more) add(*more);
    }
  }
  if (is_open) return (rests_[k] = nullptr).get();
  auto made = std::make_unique<TokenSet>(set.build());
  account(*made);
  return (rests_[k] = std::move(made)).get();
}

const TokenSet& Masks::direct(int32_t config) {
  auto& slot = direct_[config];
  if (slot) return *slot;
  Walk w(vocabulary_, nullptr);
  walk_all(config, w);
  auto made = std::make_unique<TokenSet>(w.accepted.build());
  account(*made);
  return *(direct_[config] = std::move(made));
}

// False where the rests are too many.
bool Masks::add_parts(const Config& config, Mask& mask) {
  for (int32_t i = 0; i < config.count; ++i) {
    int32_t below;
    const Local& part = local(everything_, config.items[i], below);
    if (part.is_open) return false;
    if (!part.accepted.is_empty()) mask.parts.push_back(&part.accepted);
    if (part.rests->list.empty()) continue;
    const TokenSet* more = rests(*part.rests, below, 0);
    if (!more) return false;
    if (!more->is_empty()) mask.parts.push_back(more);
  }
  return true;
}

const Mask& Masks::of(int32_t c) {
  if (const Mask* known = arena_.config(c).mask.load(std::memory_order_acquire)) return *known;
  const int32_t clamped = arena_.clamped(c);
  const Config& config = arena_.config(clamped);
  auto mask = std::make_unique<Mask>();
  mask->is_accepting = config.is_accepting;
  if (!add_parts(config, *mask)) {
    const TokenSet& all = direct(clamped);
    mask->parts.clear();
    if (!all.is_empty()) mask->parts.push_back(&all);
  }
  for (int32_t i = 0; i < config.count; ++i) {
    for (const TokenEdge& e : arena_.states().get(config.items[i].state).tokens) {
      auto& set = edge_sets_[e.set];
      if (!set) {
        set = std::make_unique<TokenSet>();
        set->bits = std::make_shared<Bits>(token_sets_[e.set]);
      }
      mask->parts.push_back(set.get());
    }
  }
  mask->is_empty = mask->parts.empty() && !mask->is_accepting;
  arena_.add_memory(sizeof(Mask) + 8 * mask->parts.size());
  Mask* made = mask.release();
  arena_.config(c).mask.store(made, std::memory_order_release);
  return *made;
}

void Masks::prepare(int32_t state) {
  int32_t below;
  const State& s = arena_.states().get(state);
  if (s.has_bytes) local(everything_, {state, kBottom}, below);
}

void Masks::write_row(Mask& mask) {
  size_t ids = 0, bases = 0;
  for (const TokenSet* part : mask.parts) {
    ids += part->ids.size();
    bases += part->bits != nullptr;
  }
  if (mask.row_bits || (bases <= 1 && ids <= kCheapIds)) return;
  mask.row_bits = std::make_unique<Bits>(vocabulary_.num_words());
  write_mask(mask, vocabulary_, mask.row_bits->data());
  arena_.add_memory(mask.row_bits->size() * 4);
  mask.row.store(mask.row_bits->data(), std::memory_order_release);
}

void Masks::fill_plainly(int32_t c, uint32_t* row) {
  const TokenTrie& trie = vocabulary_.trie();
  std::fill_n(row, vocabulary_.num_words(), 0u);
  std::vector<int32_t> at(trie.max_depth + 1);
  at[0] = c;
  for (int32_t i = 1; i < trie.num_nodes();) {
    const TokenTrie::Node& n = trie.nodes[i];
    const int32_t to = arena_.step(at[n.depth - 1], n.byte);
    if (to == kNone) {
      i += n.size;
      continue;
    }
    at[n.depth] = to;
    for (int32_t k = n.first; k < trie.nodes[i + 1].first; ++k) set_bit(row, trie.tokens[k]);
    ++i;
  }
  const Config& config = arena_.config(c);
  for (int32_t i = 0; i < config.count; ++i)
    for (const TokenEdge& e : arena_.states().get(config.items[i].state).tokens)
      for (int32_t w = 0; w < vocabulary_.num_words(); ++w) row[w] |= token_sets_[e.set][w];
  if (config.is_accepting)
    for (const int32_t t : vocabulary_.stop_ids()) set_bit(row, t);
}

bool write_mask(const Mask& mask, const Vocabulary& vocabulary, uint32_t* row) {
  const auto words = static_cast<size_t>(vocabulary.num_words());
  if (const uint32_t* known = mask.row.load(std::memory_order_acquire)) {
    std::memcpy(row, known, words * 4);
  } else {
    bool is_written = false;
    for (const TokenSet* part : mask.parts) {
      const Bits* bits = part->bits.get();
      if (!bits) continue;
      if (!is_written)
        std::memcpy(row, bits->data(), words * 4);
      else
        for (size_t w = 0; w < words; ++w) row[w] |= (*bits)[w];
      is_written = true;
    }
    if (!is_written) std::memset(row, 0, words * 4);
    for (const TokenSet* part : mask.parts)
      for (const int32_t t : part->ids) set_bit(row, t);
    if (mask.is_accepting)
      for (const int32_t t : vocabulary.stop_ids()) set_bit(row, t);
  }
  const auto whole = static_cast<size_t>(vocabulary.size()) / 32;
  for (size_t w = 0; w < whole; ++w)
    if (row[w] != ~0u) return true;
  const int left = vocabulary.size() % 32;
  return left && row[whole] != (1u << left) - 1;
}
}  // namespace lmx::grammar
