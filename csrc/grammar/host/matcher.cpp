// grammar/host/matcher.cpp
#include "matcher.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <unordered_map>

namespace lmx::grammar {
namespace {
int64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::nanoseconds(now).count();
}
constexpr int64_t kNsPerMs = 1000000;
}  // namespace

// ---- the compiled grammar ----------------------------------------------------------------------
CompiledGrammar::Generation::Generation(CompiledGrammar& owner, int64_t max_memory)
    : arena(owner.states(), owner.vocabulary().longest()),
      masks(arena, owner.vocabulary(), owner.token_sets()),
      limit(max_memory) {}

CompiledGrammar::CompiledGrammar(const Grammar& grammar,
                                 std::shared_ptr<const Vocabulary> vocabulary,
                                 const CompileOptions& options)
    : vocabulary_(std::move(vocabulary)),
      options_(options),
      grammar_(grammar),
      states_(compile(grammar, {}), {}) {
  for (const TokenSetSpec& spec : states_.program().token_sets) {
    Bits bits(vocabulary_->num_words(), 0);
    for (const int32_t id : spec.ids) {
      if (id >= vocabulary_->size())
        throw GrammarError("grammar: expected token ids in [0, " +
                           std::to_string(vocabulary_->size()) + "), got " + std::to_string(id));
      if (!spec.is_negated) set_bit(bits.data(), id);
    }
    for (int32_t t = 0; spec.is_negated && t < vocabulary_->size(); ++t)
      if (!vocabulary_->is_stop(t) && !std::binary_search(spec.ids.begin(), spec.ids.end(), t))
        set_bit(bits.data(), t);
    token_sets_.push_back(std::move(bits));
  }
  current_ = std::make_shared<Generation>(*this, options_.max_memory);
  current_ptr_ = current_.get();
}

std::shared_ptr<CompiledGrammar::Generation> CompiledGrammar::current() {
  const std::lock_guard lock(mutex_);
  return current_;
}

void CompiledGrammar::start_meter(Meter& meter) const {
  meter.steps_left = options_.max_steps;
  meter.deadline_ns = options_.limit_ms > 0 ? now_ns() + options_.limit_ms * kNsPerMs : 0;
}

void CompiledGrammar::check_memory(const Generation& g) {
  if (&g != current_.get() || g.arena.memory_bytes() < g.limit) return;
  current_ = std::make_shared<Generation>(*this, options_.max_memory);
  ++num_generations_;
  current_ptr_.store(current_.get(), std::memory_order_release);
}

size_t CompiledGrammar::memory_bytes() {
  const std::lock_guard lock(mutex_);
  return states_.memory_bytes() + current_->arena.memory_bytes();
}

int64_t CompiledGrammar::precompute(int64_t max_ms) {
  const int64_t deadline = now_ns() + max_ms * kNsPerMs;
  const auto g = current();
  int64_t done = 0;
  for (int32_t s = 0; now_ns() < deadline; ++s, ++done) {
    const bool more = locked(*g, [&](Arena&, Masks& masks) {
      if (static_cast<size_t>(s) >= states_.size()) return false;
      masks.prepare(s);
      return true;
    });
    if (!more) break;
  }
  return done;
}

// ---- history -----------------------------------------------------------------------------------
Matcher::Matcher(std::shared_ptr<CompiledGrammar> grammar, std::vector<int32_t> stop_ids,
                 bool own_stop_ids, bool terminate_without_stop)
    : grammar_(std::move(grammar)),
      generation_(grammar_->current()),
      stop_ids_(std::move(stop_ids)),
      own_stop_ids_(own_stop_ids),
      terminate_without_stop_(terminate_without_stop) {
  for (const int32_t t : stop_ids_) check_token(t);
  const int32_t root = generation_->arena.root();
  head_ = new Node{root, ends_here(root), nullptr};
}

Matcher::Matcher(const Matcher& other)
    : grammar_(other.grammar_),
      generation_(other.generation_),
      stop_ids_(other.stop_ids_),
      own_stop_ids_(other.own_stop_ids_),
      terminate_without_stop_(other.terminate_without_stop_),
      head_(other.head_),
      steps_(other.steps_) {
  head_->users.fetch_add(1, std::memory_order_relaxed);
}

Matcher::~Matcher() { release(head_); }

void Matcher::release(Node* node) {
  while (node && node->users.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    Node* before = node->before;
    delete node;
    node = before;
  }
}

void Matcher::push(int32_t config, bool is_terminated) {
  head_ = new Node{config, is_terminated, head_};
  ++steps_;
}

void Matcher::rollback(int64_t steps) {
  if (steps < 0 || steps > steps_)
    throw std::invalid_argument("Matcher.rollback: expected steps in [0, " +
                                std::to_string(steps_) + "], got " + std::to_string(steps));
  for (int64_t i = 0; i < steps; ++i) {
    Node* before = head_->before;
    before->users.fetch_add(1, std::memory_order_relaxed);
    release(head_);
    head_ = before;
  }
  steps_ -= steps;
}

// Copies the history, its configurations translated; forks that share it move on their own.
void Matcher::move_over() {
  const auto next = grammar_->current();
  std::vector<Node*> nodes;
  for (Node* n = head_; n; n = n->before) nodes.push_back(n);
  std::unordered_map<int32_t, int32_t> known;
  Node* made = nullptr;
  {
    const std::lock_guard lock(grammar_->mutex());
    next->arena.meter.steps_left = int64_t{1} << 40;
    next->arena.meter.deadline_ns = 0;
    for (size_t i = nodes.size(); i-- > 0;) {
      const auto [it, is_new] = known.try_emplace(nodes[i]->config, 0);
      if (is_new) it->second = next->arena.import(generation_->arena, nodes[i]->config);
      made = new Node{it->second, nodes[i]->is_terminated, made};
    }
    next->limit = std::max(next->limit, 2 * next->arena.memory_bytes());
  }
  release(head_);
  head_ = made;
  generation_ = next;
}

// ---- reading -----------------------------------------------------------------------------------
void Matcher::check_token(int64_t token) const {
  if (token < 0 || token >= grammar_->vocabulary().size())
    throw std::invalid_argument("Matcher: expected a token in [0, " +
                                std::to_string(grammar_->vocabulary().size()) + "), got " +
                                std::to_string(token));
}

bool Matcher::is_stop(int32_t token) const {
  if (!own_stop_ids_) return grammar_->vocabulary().is_stop(token);
  return std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end();
}

int32_t Matcher::after_bytes(int32_t c, std::string_view bytes) {
  const Arena& arena = generation_->arena;
  for (size_t i = 0; i < bytes.size() && c != kNone; ++i) {
    const int32_t next = arena.known_step(c, static_cast<uint8_t>(bytes[i]));
    if (next == kUnknown)
      return grammar_->locked(*generation_, [&](Arena& a, Masks&) {
        for (; i < bytes.size() && c != kNone; ++i) c = a.step(c, static_cast<uint8_t>(bytes[i]));
        return c;
      });
    c = next;
  }
  return c;
}

int32_t Matcher::after_token(int32_t c, int32_t token) {
  const Vocabulary& vocabulary = grammar_->vocabulary();
  const bool is_spelled = vocabulary.is_spelled(token);
  const int32_t by_bytes = is_spelled ? after_bytes(c, vocabulary.bytes(token)) : kNone;
  if (!generation_->arena.config(c).has_tokens) return by_bytes;
  std::vector<bool> in_set;
  for (const Bits& set : grammar_->token_sets())
    in_set.push_back(set[token >> 5] >> (token & 31) & 1);
  return grammar_->locked(
      *generation_, [&](Arena& a, Masks&) { return a.step_token_edges(c, in_set, by_bytes); });
}

bool Matcher::ends_here(int32_t c) const {
  const Config& config = generation_->arena.config(c);
  return terminate_without_stop_ && config.is_accepting && config.count == 0;
}

bool Matcher::accept(int64_t given) {
  check_token(given);
  sync();
  const auto token = static_cast<int32_t>(given);
  if (is_stop(token)) {
    if (!head_->is_terminated && !config().is_accepting) return false;
    return push(head_->config, true), true;
  }
  if (head_->is_terminated) return false;
  const int32_t next = after_token(head_->config, token);
  if (next == kNone) return false;
  push(next, ends_here(next));
  return true;
}

bool Matcher::accept_bytes(std::string_view bytes) {
  sync();
  if (head_->is_terminated) return bytes.empty();
  const int32_t next = after_bytes(head_->config, bytes);
  if (next == kNone) return false;
  push(next, ends_here(next));
  return true;
}

int64_t Matcher::validate(std::span<const int64_t> tokens) {
  Matcher probe(*this);
  int64_t n = 0;
  while (n < static_cast<int64_t>(tokens.size()) && probe.accept(tokens[n])) ++n;
  return n;
}

std::string Matcher::forced_bytes(bool whole_characters) {
  constexpr size_t kMost = 65536;
  sync();
  std::string out;
  if (head_->is_terminated) return out;
  grammar_->locked(*generation_, [&](Arena& arena, Masks&) {
    int32_t c = head_->config;
    while (out.size() < kMost) {
      const Config& config = arena.config(c);
      if (config.is_accepting || config.has_tokens) break;
      int only = -1, ways = 0;
      for (int b = 0; b < 256 && ways < 2; ++b) {
        bool is_way = false;
        for (int32_t i = 0; i < config.count; ++i) {
          const State& state = arena.states().get(config.items[i].state);
          is_way |= state.next && state.next[b] != kNone;
        }
        if (is_way) only = b, ++ways;
      }
      if (ways != 1) break;
      out += static_cast<char>(only);
      c = arena.step(c, static_cast<uint8_t>(only));
    }
    return 0;
  });
  if (whole_characters) {
    size_t begin = out.size();  // of the last character
    while (begin > 0 && out.size() - begin < 3 && (out[begin - 1] & 0xC0) == 0x80) --begin;
    if (begin > 0) --begin;
    if (find_bad_utf8(std::string_view(out).substr(begin)) != std::string_view::npos)
      out.resize(begin);
  }
  return out;
}

// ---- masks -------------------------------------------------------------------------------------
void Matcher::fix_stops(bool is_allowed, uint32_t* row) const {
  if (!own_stop_ids_) return;
  for (const int32_t t : grammar_->vocabulary().stop_ids()) row[t >> 5] &= ~(1u << (t & 31));
  for (const int32_t t : stop_ids_) {
    row[t >> 5] &= ~(1u << (t & 31));
    if (is_allowed) set_bit(row, t);
  }
}

void Matcher::fill_uncached(int32_t c, uint32_t* row) {
  grammar_->locked(*generation_, [&](Arena& arena, Masks&) {
    Arena fresh(arena.states(), grammar_->vocabulary().longest());
    const int32_t here = fresh.import(arena, c);
    Masks(fresh, grammar_->vocabulary(), grammar_->token_sets()).fill_plainly(here, row);
    return 0;
  });
}

FillStatus Matcher::fill_config(int32_t c, uint32_t* row) {
  const Vocabulary& vocabulary = grammar_->vocabulary();
  const Config& config = generation_->arena.config(c);
  bool is_partial = true;
  if (grammar_->options().cache) {
    Mask* mask = config.mask.load(std::memory_order_acquire);
    if (!mask) grammar_->locked(*generation_, [&](Arena&, Masks& masks) { return masks.of(c), 0; });
    mask = config.mask.load(std::memory_order_acquire);
    if (mask->fills.fetch_add(1, std::memory_order_relaxed) == 1)
      grammar_->locked(*generation_, [&](Arena&, Masks& m) { return m.write_row(*mask), 0; });
    is_partial = write_mask(*mask, vocabulary, row);
    if (mask->is_empty) return kNoToken;
  } else {
    fill_uncached(c, row);
  }
  if (own_stop_ids_) {
    fix_stops(config.is_accepting, row);
    is_partial = true;
  }
  if (!grammar_->options().cache) {
    const auto words = static_cast<size_t>(vocabulary.num_words());
    if (std::all_of(row, row + words, [](uint32_t w) { return w == 0; })) return kNoToken;
  }
  return is_partial ? kPartial : kAllAllowed;
}

FillStatus Matcher::fill(uint32_t* row) {
  sync();
  if (!head_->is_terminated) return fill_config(head_->config, row);
  std::memset(row, 0, 4 * static_cast<size_t>(grammar_->vocabulary().num_words()));
  for (const int32_t t : own_stop_ids_ ? stop_ids_ : grammar_->vocabulary().stop_ids())
    set_bit(row, t);
  return kTerminated;
}

int64_t Matcher::mask_id() {
  sync();
  if (head_->is_terminated) return -2;
  return grammar_->locked(*generation_, [&](Arena& arena, Masks&) {
    return static_cast<int64_t>(arena.clamped(head_->config));
  });
}

void Matcher::fill_tree(const Tree& tree) {
  sync();
  const int64_t deadline = tree.max_ms > 0 ? now_ns() + tree.max_ms * kNsPerMs : 0;
  const auto words = static_cast<size_t>(grammar_->vocabulary().num_words());
  std::vector<Matcher> at;  // forks: two words and a count each
  at.reserve(tree.num_nodes);
  for (int64_t i = 0; i < tree.num_nodes; ++i) {
    const int32_t parent = tree.parents[i];
    if (parent < -1 || parent >= i)
      throw std::invalid_argument("Matcher.fill_tree: expected parent " + std::to_string(i) +
                                  " in [-1, " + std::to_string(i) + "), got " +
                                  std::to_string(parent));
    at.emplace_back(parent < 0 ? *this : at[parent]);
    uint32_t* row = tree.rows + i * words;
    std::memset(row, 0, 4 * words);
    tree.valid[i] = parent < 0 ? 1 : tree.valid[parent];
    if (tree.valid[i] != 1) continue;
    if (deadline && now_ns() > deadline) {
      tree.valid[i] = 2;
      continue;
    }
    const bool is_accepted = tree.root_is_current && i == 0;
    const int64_t token = tree.tokens[i];
    const bool is_token = token >= 0 && token < grammar_->vocabulary().size();
    if (!is_accepted && (!is_token || !at[i].accept(token)))
      tree.valid[i] = 0;
    else
      at[i].fill(row);
  }
}
}  // namespace lmx::grammar
