// tests/simt/rendezvous.cpp: barriers and warp operations. A fiber that arrives waits; the last one
// to arrive does the operation for all and makes them ready.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine.h"

namespace simt {
namespace {

struct Lane {  // the argument of one lane to a warp operation
  uint64_t value, result;
  int source;
  uint32_t (*combine)(uint32_t, uint32_t);
};

void arrive(Fiber& me, State state, const char* what, Site site, unsigned mask, void* arg) {
  count_step();
  me.state = state;
  me.what = what;
  me.site = site;
  me.mask = mask;
  me.arg = arg;
}

bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

// Both must be at the same place: a barrier in each branch of an `if` is no barrier for the block.
bool same_place(const Fiber& a, const Fiber& b) {
  return a.site.line == b.site.line && same_text(a.what, b.what) &&
         same_text(a.site.file, b.site.file);
}

// After a __syncwarp of `mask`, each lane of it knows what any of them knew and what all did.
void merge_seen(Fiber* warp, unsigned mask, uint32_t now) {
  uint32_t merged[kWarpSize] = {};
  for (int i = 0; i < kWarpSize; ++i) {
    if (!(mask >> i & 1)) continue;
    for (int j = 0; j < kWarpSize; ++j) merged[j] = std::max(merged[j], warp[i].seen[j]);
  }
  for (int i = 0; i < kWarpSize; ++i)
    if (mask >> i & 1) merged[i] = now;
  for (int i = 0; i < kWarpSize; ++i)
    if (mask >> i & 1) std::copy(merged, merged + kWarpSize, warp[i].seen);
}

// True if a message would say the same of both.
bool same_fate(const Fiber& a, const Fiber& b) {
  return a.state == b.state && (a.state == State::done || (same_place(a, b) && a.mask == b.mask));
}

int describe(char* text, size_t size, const Fiber& f) {
  if (f.state == State::done) return std::snprintf(text, size, "thread %d returned", f.index);
  char mask[32] = "";
  if (f.mask != ~0u) std::snprintf(mask, sizeof mask, " of lanes %08x", f.mask);
  return std::snprintf(text, size, "thread %d waits at %s%s (%.80s:%d)", f.index, f.what, mask,
                       f.site.file, f.site.line);
}

}  // namespace

// Tells who waits where, from each thread on that does something else than the one before it.
void fail_stuck() {
  const Machine& m = *active;
  char text[800];
  int end = 0;
  for (int i = 0, shown = 0; i < m.num_threads && shown < 4; ++i) {
    if (i > 0 && same_fate(m.fibers[i], m.fibers[i - 1])) continue;
    end += std::snprintf(text + end, sizeof text - end, shown++ ? ", from " : "from ");
    end += describe(text + end, sizeof text - end, m.fibers[i]);
  }
  fail(m.running->site, "some threads never arrive: %s", text);
}

void meet_block(const char* what, Site site, void* arg, Run run) {
  Machine& m = *active;
  arrive(*m.running, State::at_block, what, site, ~0u, arg);
  if (++m.num_at_block < m.num_threads) return yield();
  void* args[kMaxThreads];
  for (int i = 0; i < m.num_threads; ++i) {
    if (!same_place(m.fibers[i], *m.running)) fail_stuck();
    args[i] = m.fibers[i].arg;
  }
  if (run) run(args, m.num_threads);
  for (int i = 0; i < m.num_threads; ++i) m.fibers[i].state = State::ready;
  m.num_at_block = 0;
  m.memory.block_barrier();
}

void meet_warp(const char* what, Site site, unsigned mask, void* arg, Run run, bool orders_memory) {
  Machine& m = *active;
  Fiber& me = *m.running;
  Fiber* warp = &me - me.lane;
  const int lanes = std::min<int>(kWarpSize, m.num_threads - (warp - m.fibers));
  if (!(mask >> me.lane & 1)) fail(site, "%s: the calling lane is not in the mask", what);
  if (lanes < kWarpSize && mask >> lanes)
    fail(site, "%s: the mask names lanes that the block does not have", what);
  arrive(me, State::at_warp, what, site, mask, arg);
  int& num_at_warp = m.num_at_warp[me.index / kWarpSize];
  if (++num_at_warp < __builtin_popcount(mask)) return yield();
  for (int i = 0; i < lanes; ++i)  // some may wait with another mask
    if (mask >> i & 1 && (warp[i].state != State::at_warp || warp[i].mask != mask)) return yield();
  num_at_warp -= __builtin_popcount(mask);
  void* args[kWarpSize] = {};
  for (int i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    if (!same_place(warp[i], me)) fail_stuck();
    args[i] = warp[i].arg;
  }
  if (run) run(args, kWarpSize);
  if (orders_memory) merge_seen(warp, mask, m.memory.tick());
  for (int i = 0; i < lanes; ++i)
    if (mask >> i & 1) warp[i].state = State::ready;
}

int count_in_block(const char* what, Site site, bool predicate) {
  struct Vote {
    int mine, sum;
  } vote{predicate, 0};
  meet_block(what, site, &vote, [](void* const* args, int count) {
    int sum = 0;
    for (int i = 0; i < count; ++i) sum += static_cast<Vote*>(args[i])->mine;
    for (int i = 0; i < count; ++i) static_cast<Vote*>(args[i])->sum = sum;
  });
  return vote.sum;
}

uint64_t shuffle(const char* what, Site site, unsigned mask, uint64_t bits, int source_lane) {
  if (!(mask >> source_lane & 1))
    fail(site, "%s reads lane %d, which is not in the mask", what, source_lane);
  Lane lane{bits, 0, source_lane, nullptr};
  const Run run = [](void* const* args, int count) {
    for (int i = 0; i < count; ++i) {
      if (!args[i]) continue;
      Lane& me = *static_cast<Lane*>(args[i]);
      me.result = static_cast<Lane*>(args[me.source])->value;
    }
  };
  meet_warp(what, site, mask, &lane, run, false);
  return lane.result;
}

unsigned match(const char* what, Site site, unsigned mask, uint64_t bits) {
  Lane lane{bits, 0, 0, nullptr};
  const Run run = [](void* const* args, int count) {
    for (int i = 0; i < count; ++i)
      for (int j = 0; j < count; ++j)
        if (args[i] && args[j] &&
            static_cast<Lane*>(args[i])->value == static_cast<Lane*>(args[j])->value)
          static_cast<Lane*>(args[i])->result |= 1u << j;
  };
  meet_warp(what, site, mask, &lane, run, false);
  return static_cast<unsigned>(lane.result);
}

uint32_t reduce(const char* what, Site site, unsigned mask, uint32_t value,
                uint32_t (*combine)(uint32_t, uint32_t)) {
  Lane lane{value, 0, 0, combine};
  const Run run = [](void* const* args, int count) {
    const Lane* first = nullptr;
    uint32_t all = 0;
    for (int i = 0; i < count; ++i) {
      if (!args[i]) continue;
      const auto* l = static_cast<Lane*>(args[i]);
      all = first ? first->combine(all, static_cast<uint32_t>(l->value))
                  : static_cast<uint32_t>(l->value);
      first = first ? first : l;
    }
    for (int i = 0; i < count; ++i)
      if (args[i]) static_cast<Lane*>(args[i])->result = all;
  };
  meet_warp(what, site, mask, &lane, run, false);
  return static_cast<uint32_t>(lane.result);
}

}  // namespace simt
