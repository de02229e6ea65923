// grammar/host/matcher.h: a compiled grammar over a vocabulary, and the state of one text.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "mask.h"

namespace lmx::grammar {
struct CompileOptions {
  int64_t limit_ms = 5000;                  // of one call; 0: none
  int64_t max_steps = 200000;               // new steps of one call
  int64_t max_memory = int64_t{256} << 20;  // of stacks, configurations and masks
  bool cache = true;                        // false: every mask anew, by a walk of all tokens
};

// Threads may share one: what is known is read without a lock, what is not is made under one.
class CompiledGrammar {
 public:
  CompiledGrammar(const Grammar& grammar, std::shared_ptr<const Vocabulary> vocabulary,
                  const CompileOptions& options);

  // Stacks, configurations and what is known about them. When they outgrow max_memory a new
  // generation begins; a matcher moves over at its next call, and the last one frees the old.
  struct Generation {
    Generation(CompiledGrammar& owner, int64_t limit);
    Arena arena;
    Masks masks;
    size_t limit;
  };

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  const std::shared_ptr<const Vocabulary>& vocabulary_ptr() const { return vocabulary_; }
  const CompileOptions& options() const { return options_; }
  std::string text() const { return to_ebnf(grammar_); }  // EBNF of the same language
  const std::vector<Bits>& token_sets() const { return token_sets_; }
  States& states() { return states_; }
  size_t memory_bytes();
  int64_t num_generations() const { return num_generations_; }
  // Makes masks of states ahead of time, until none is left or the time is up.
  int64_t precompute(int64_t max_ms);
  // The device automaton (device.h) walks states itself.
  std::mutex& mutex() { return mutex_; }

  bool is_current(const Generation* g) const {
    return current_ptr_.load(std::memory_order_acquire) == g;
  }
  std::shared_ptr<Generation> current();
  // Runs f(arena, masks) with the lock and a fresh meter, and checks the memory afterwards.
  template <typename F>
  auto locked(Generation& g, const F& f) {
    const std::lock_guard lock(mutex_);
    start_meter(g.arena.meter);
    struct After {
      CompiledGrammar& owner;
      Generation& g;
      ~After() { owner.check_memory(g); }
    } after{*this, g};
    return f(g.arena, g.masks);
  }

 private:
  void start_meter(Meter& meter) const;
  void check_memory(const Generation& g);

  std::shared_ptr<const Vocabulary> vocabulary_;
  CompileOptions options_;
  Grammar grammar_;
  States states_;
  std::vector<Bits> token_sets_;
  std::mutex mutex_;
  std::shared_ptr<Generation> current_;
  std::atomic<const Generation*> current_ptr_{nullptr};
  std::atomic<int64_t> num_generations_{1};
};

enum FillStatus : int32_t {
  kPartial = 0,     // some tokens are allowed
  kAllAllowed = 1,  // every one is: the mask need not be applied
  kTerminated = 2,  // only stop tokens
  kNoToken = 3,     // the text could go on, but no token spells it: a row of zeros
  kLimit = 4        // a limit was hit: a row of zeros
};

class Matcher {
 public:
  Matcher(std::shared_ptr<CompiledGrammar> grammar, std::vector<int32_t> stop_ids,
          bool own_stop_ids, bool terminate_without_stop);
  Matcher(const Matcher& other);  // the same state; neither knows of the other
  ~Matcher();
  Matcher& operator=(const Matcher&) = delete;

  bool accept(int64_t token);
  bool accept_bytes(std::string_view bytes);
  int64_t validate(std::span<const int64_t> tokens);
  FillStatus fill(uint32_t* row);
  void rollback(int64_t steps);
  void reset() { rollback(steps_); }
  bool is_completed() { return sync(), config().is_accepting; }
  bool is_terminated() const { return head_->is_terminated; }
  int64_t steps() const { return steps_; }
  std::string forced_bytes(bool whole_characters);
  int64_t mask_id();  // equal for equal masks, within a generation
  int64_t generation() { return sync(), grammar_->num_generations(); }

  // A draft tree. parents[i] < i, or -1 at a root. With root_is_current token 0 has been accepted
  // before. rows: [num_nodes, num_words]; valid: 1, 0 for a node that may not follow, 2 if max_ms
  // ran out before it.
  struct Tree {
    const int32_t* parents;
    const int64_t* tokens;
    int64_t num_nodes;
    uint32_t* rows;
    int32_t* valid;
    bool root_is_current;
    int64_t max_ms;
  };
  void fill_tree(const Tree& tree);

  CompiledGrammar& grammar() const { return *grammar_; }
  const std::shared_ptr<CompiledGrammar>& grammar_ptr() const { return grammar_; }

 private:
  struct Node {  // of the history, shared by forks
    int32_t config;
    bool is_terminated;
    Node* before;
    std::atomic<int32_t> users{1};
  };
  static void release(Node* node);
  void push(int32_t config, bool is_terminated);
  void sync() {
    if (!grammar_->is_current(generation_.get())) move_over();
  }
  void move_over();
  const Config& config() const { return generation_->arena.config(head_->config); }
  bool is_stop(int32_t token) const;
  int32_t after_bytes(int32_t config, std::string_view bytes);
  int32_t after_token(int32_t config, int32_t token);
  bool ends_here(int32_t config) const;
  FillStatus fill_config(int32_t config, uint32_t* row);
  void fill_uncached(int32_t config, uint32_t* row);
  void fix_stops(bool is_allowed, uint32_t* row) const;
  void check_token(int64_t token) const;

  std::shared_ptr<CompiledGrammar> grammar_;
  std::shared_ptr<CompiledGrammar::Generation> generation_;
  std::vector<int32_t> stop_ids_;
  bool own_stop_ids_, terminate_without_stop_;
  Node* head_;
  int64_t steps_ = 0;
};
}  // namespace lmx::grammar
