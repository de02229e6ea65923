// grammar/host/mask.cpp
#include "mask.h"

#include <algorithm>
#include <cstring>

namespace lmx::grammar {
namespace {
constexpr size_t kMaxIds = 1000;  // a longer list becomes bits
constexpr int kMinAlphabet = 12;  // a loop over fewer bytes is not worth a table
constexpr size_t kCheapIds = 64;  // so many bits set one by one beat a second copy of a row
constexpr int kMaxChain = 4;      // counted rules that are walked together with their body
}  // namespace

Masks::Masks(Arena& arena, const Vocabulary& vocabulary, const std::vector<Bits>& token_sets)
    : arena_(arena), vocabulary_(vocabulary), token_sets_(token_sets) {
  edge_sets_.resize(token_sets.size());
}

// ---- the walk --------------------------------------------------------------------------------
// What is kept per depth of a walk through the trie.
struct Masks::Walk {
  std::vector<int32_t> config;
  std::vector<uint8_t> byte;     // byte[d]: the one from depth d to d + 1
  std::vector<bool> is_covered;  // the string so far lies within `base`
  std::vector<int32_t> ends;     // depths at which the rule may have ended
  std::vector<int32_t> ids;      // accepted tokens
  std::vector<Rest> rests;
  const std::bitset<256>& follow;
  Alphabet base;         // strings over it are accepted without a walk, if it is not empty
  int32_t onto = kNone;  // where they lead

  Walk(int32_t max_depth, const std::bitset<256>& follow_of_rule)
      : config(max_depth + 1),
        byte(max_depth + 1),
        is_covered(max_depth + 1),
        follow(follow_of_rule) {}

  // Nothing at or below the node can be read: what is left behind each end is kept.
  void keep(int32_t node) {
    for (const int32_t end : ends)
      if (follow[byte[end]]) rests.push_back({node, end});
  }
};

// The alphabet over which `from` goes to one configuration that then stays where it is.
Alphabet Masks::first_loop(int32_t from, int32_t& onto) {
  onto = kNone;
  int best = 0;
  std::vector<std::pair<int32_t, int>> counts;
  for (int b = 0; b < 128; ++b) {
    const int32_t to = arena_.step(from, static_cast<uint8_t>(b));
    if (to == kNone) continue;
    size_t i = 0;
    while (i < counts.size() && counts[i].first != to) ++i;
    if (i == counts.size()) counts.push_back({to, 0});
    if (++counts[i].second > best) best = counts[i].second, onto = to;
  }
  if (best < kMinAlphabet) return {};
  const Alphabet& loop = arena_.loop(onto);
  if (loop.count() < kMinAlphabet) return {};
  Alphabet a = onto == from ? loop : arena_.loop_from(from, onto);
  a.ascii_lo &= loop.ascii_lo;
  a.ascii_hi &= loop.ascii_hi;
  a.has_wide &= loop.has_wide;
  return a.count() < kMinAlphabet ? Alphabet{} : a;
}

// Nodes [begin, end), whose parents' configurations are known.
void Masks::walk_below(int32_t begin, int32_t end, Walk& w) {
  const TokenTrie& trie = vocabulary_.trie();
  const bool has_base = w.base.count() > 0;
  const auto take = [&](int32_t first, int32_t last) {
    for (int32_t k = first; k < last; ++k) w.ids.push_back(trie.tokens[k]);
  };
  int visited = 0;
  for (int32_t i = begin; i < end;) {
    if ((++visited & 4095) == 0) arena_.meter.check();
    const int32_t d = trie.depth[i] - 1;  // of the parent
    const int32_t at = w.config[d];
    const uint8_t b = trie.byte[i];
    while (!w.ends.empty() && w.ends.back() > d) w.ends.pop_back();
    w.byte[d] = b;
    if (has_base && w.is_covered[d] && (d == 0 || at == w.onto) && w.base.covers(trie.content[i])) {
      i += trie.size[i];
      continue;
    }
    const int32_t to = arena_.step(at, b);
    if (to == kNone) {
      if (!w.ends.empty()) w.keep(i);
      i += trie.size[i];
      continue;
    }
    if (trie.size[i] > 4 && (to == at || arena_.config(at).loop) &&
        arena_.loop(at).covers(trie.content[i])) {
      take(trie.first[i], trie.first[i + trie.size[i]]);  // all below stays here
      i += trie.size[i];
      continue;
    }
    w.is_covered[d + 1] = w.is_covered[d] && w.base.has(b);
    if (!w.is_covered[d + 1]) take(trie.first[i], trie.first[i + 1]);
    if (arena_.config(to).is_accepting) w.ends.push_back(d + 1);
    w.config[d + 1] = to;
    ++i;
  }
}

void Masks::walk_all(int32_t from, Walk& w, TokenSet& accepted) {
  w.config[0] = from;
  w.base = first_loop(from, w.onto);
  w.is_covered[0] = w.base.count() > 0;
  if (w.is_covered[0]) accepted.base = &vocabulary_.within(w.base);
  walk_below(1, vocabulary_.trie().num_nodes(), w);
}

// The bytes from the offset up to the node's parent, then the node and all below.
void Masks::walk_rest(Rest rest, int32_t from, Walk& w) {
  const TokenTrie& trie = vocabulary_.trie();
  const int32_t node = rest.node, last = trie.depth[node] - 1;
  const std::string_view path = vocabulary_.bytes(trie.tokens[trie.first[node]]);
  w.ends.clear();
  w.config[rest.offset] = from;
  for (int32_t d = rest.offset; d <= last; ++d) w.byte[d] = static_cast<uint8_t>(path[d]);
  for (int32_t d = rest.offset; d < last; ++d) {
    const int32_t to = arena_.step(w.config[d], w.byte[d]);
    if (to == kNone) return w.keep(node);
    w.config[d + 1] = to;
    if (arena_.config(to).is_accepting) w.ends.push_back(d + 1);
  }
  walk_below(node, node + trie.size[node], w);
}

// A long list becomes bits.
void Masks::pack(TokenSet& set) {
  if (set.ids.size() > kMaxIds) {
    set.own = std::make_unique<Bits>(vocabulary_.num_words(), 0);
    if (set.base) *set.own = *set.base;
    for (const int32_t t : set.ids) set_bit(set.own->data(), t);
    set.ids.clear();
    set.base = nullptr;
    arena_.add_memory(set.own->size() * 4);
  }
  set.ids.shrink_to_fit();
  arena_.add_memory(set.ids.size() * 4 + sizeof(TokenSet) + 64);
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
  Walk w(vocabulary_.longest(), states.program().rules[rule].follow);
  if (rests.id == everything_.id)
    walk_all(from, w, made->accepted);
  else
    for (const Rest rest : rests.list) walk_rest(rest, from, w);
  made->accepted.ids.swap(w.ids);
  made->rests = {num_rests_++, std::move(w.rests)};
  arena_.add_memory(made->rests.list.size() * sizeof(Rest) + sizeof(Local) + 64);
  pack(made->accepted);
  return *(locals_[key(rests.id, from)] = std::move(made));
}

// The tokens whose rests can be read after the rule above a frame has ended.
const TokenSet& Masks::rests(const Rests& given, int32_t frame) {
  const uint64_t k = key(given.id, frame);
  if (const auto found = rests_.find(k); found != rests_.end()) return *found->second;
  arena_.meter.spend();
  auto set = std::make_unique<TokenSet>();
  const int32_t after = arena_.popped(frame);
  if (after != kNone) {
    const Config& config = arena_.config(after);
    for (int32_t i = 0; i < config.count; ++i) {
      int32_t below;
      const Local& part = local(given, config.items[i], below);
      const auto add = [&](const TokenSet& more) {
        if (const Bits* bits = more.bits())
          for (size_t w = 0; w < bits->size(); ++w)
            for (uint32_t word = (*bits)[w]; word; word &= word - 1)
              set->ids.push_back(static_cast<int32_t>(32 * w + __builtin_ctz(word)));
        set->ids.insert(set->ids.end(), more.ids.begin(), more.ids.end());
      };
      add(part.accepted);
      if (!part.rests.list.empty()) add(rests(part.rests, below));  // at most a token's length deep
    }
  }
  pack(*set);
  return *(rests_[k] = std::move(set));
}

const Mask& Masks::of(int32_t c) {
  if (const Mask* known = arena_.config(c).mask.load(std::memory_order_acquire)) return *known;
  const int32_t clamped = arena_.clamped(c);
  const Config& config = arena_.config(clamped);
  auto mask = std::make_unique<Mask>();
  mask->is_accepting = config.is_accepting;
  for (int32_t i = 0; i < config.count; ++i) {
    int32_t below;
    const Local& part = local(everything_, config.items[i], below);
    if (!part.accepted.is_empty()) mask->parts.push_back(&part.accepted);
    if (!part.rests.list.empty())
      if (const TokenSet& more = rests(part.rests, below); !more.is_empty())
        mask->parts.push_back(&more);
    for (const TokenEdge& e : arena_.states().get(config.items[i].state).tokens) {
      auto& set = edge_sets_[e.set];
      if (!set) {
        set = std::make_unique<TokenSet>();
        set->base = &token_sets_[e.set];
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
    bases += part->bits() != nullptr;
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
    const int32_t d = trie.depth[i], to = arena_.step(at[d - 1], trie.byte[i]);
    if (to == kNone) {
      i += trie.size[i];
      continue;
    }
    at[d] = to;
    for (int32_t k = trie.first[i]; k < trie.first[i + 1]; ++k) set_bit(row, trie.tokens[k]);
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
      const Bits* bits = part->bits();
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
