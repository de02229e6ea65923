// tests/simt/memory.cpp: the checker of shared and global memory behind memory.h.
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "machine.h"

namespace simt {
namespace {

// This library's own image: constants there may be read. The linker's symbols must be declared
// hidden; otherwise they are those of the executable.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start[], _end[];

bool in_image(uintptr_t a) {
  return a >= reinterpret_cast<uintptr_t>(__ehdr_start) && a < reinterpret_cast<uintptr_t>(_end);
}

bool is_write(Access access) { return access == Access::write || access == Access::atomic; }

const char* verb(Access access) {
  switch (access) {
    case Access::write: return "writes";
    case Access::atomic: return "updates";
    default: return "reads";
  }
}

}  // namespace

// ---- what may be touched ----------------------------------------------------------------------

void Memory::expose(const void* begin, size_t bytes, bool writable, bool fresh) {
  if (bytes == 0) return;
  const auto a = reinterpret_cast<uintptr_t>(begin);
  const bool known = std::any_of(tensors_.begin(), tensors_.end(),
                                 [&](const Tensor& t) { return a < t.end && a + bytes > t.begin; });
  tensors_.push_back({a, a + bytes, writable, fresh && !known});
  if (fresh && !known) std::memset(const_cast<void*>(begin), 0xff, bytes);

  Shadow joined{a, a + bytes, nullptr};
  for (const Shadow& s : shadows_) {
    if (s.end <= a || s.begin >= a + bytes) continue;
    joined.begin = std::min(joined.begin, s.begin);
    joined.end = std::max(joined.end, s.end);
    if (joined.begin == s.begin && joined.end == s.end) return;  // it lies within this one
  }
  // calloc, because most bytes of a large tensor are never touched and so never take memory.
  joined.bytes.reset(static_cast<Byte*>(std::calloc(joined.end - joined.begin, sizeof(Byte))));
  if (!joined.bytes) throw std::bad_alloc();
  for (const Shadow& s : shadows_)
    if (s.begin >= joined.begin && s.end <= joined.end)
      std::copy(&s.bytes[0], &s.bytes[s.end - s.begin], &joined.bytes[s.begin - joined.begin]);
  std::erase_if(shadows_,
                [&](const Shadow& s) { return s.begin >= joined.begin && s.end <= joined.end; });
  shadows_.push_back(std::move(joined));
}

void Memory::clear_exposed() {
  tensors_.clear();
  shadows_.clear();
}

const Memory::Tensor* Memory::find(uintptr_t a, size_t bytes, bool writable) {
  const auto allows = [&](const Tensor& t) {
    return a >= t.begin && a < t.end && bytes <= t.end - a && (t.writable || !writable);
  };
  if (last_tensor_ < tensors_.size() && allows(tensors_[last_tensor_]))
    return &tensors_[last_tensor_];
  for (last_tensor_ = 0; last_tensor_ < tensors_.size(); ++last_tensor_)
    if (allows(tensors_[last_tensor_])) return &tensors_[last_tensor_];
  return nullptr;
}

Byte* Memory::shadow_of(uintptr_t a) {
  const auto holds = [&](const Shadow& s) { return a >= s.begin && a < s.end; };
  if (last_shadow_ >= shadows_.size() || !holds(shadows_[last_shadow_]))
    last_shadow_ = std::find_if(shadows_.begin(), shadows_.end(), holds) - shadows_.begin();
  return &shadows_[last_shadow_].bytes[a - shadows_[last_shadow_].begin];
}

// ---- time -------------------------------------------------------------------------------------

void Memory::begin_launch() {
  if (now_ > UINT32_MAX / 2) {  // long before it wraps: forget all stamps and start again
    now_ = 1;
    std::memset(shared_shadow_, 0, sizeof shared_shadow_);
    for (Shadow& s : shadows_)
      for (uintptr_t i = 0; i < s.end - s.begin; ++i)
        s.bytes[i] = {.write = {s.bytes[i].write.time ? 1u : 0u, 0, 0, false, false, false},
                      .read = {}};
  }
  launch_time_ = ++now_;
}

void Memory::begin_block(size_t shared_bytes) {
  block_time_ = barrier_time_ = ++now_;
  shared_bytes_ = shared_bytes;
  std::memset(shared_, 0xff, shared_bytes);  // NaN in every float format
}

bool Memory::ordered(const Fiber& me, const Who& who) const {
  return !who.elsewhere && who.time >= block_time_ && ordered_in_block(me, who);
}

// True if what `who` did in this block is ordered before what the running fiber does now.
bool Memory::ordered_in_block(const Fiber& me, const Who& who) const {
  if (who.time < barrier_time_) return true;
  if (who.warp != me.index / kWarpSize) return false;
  for (uint32_t lanes = who.lanes & ~(1u << me.lane); lanes; lanes &= lanes - 1)
    if (who.time >= me.seen[__builtin_ctz(lanes)]) return false;
  return true;
}

// ---- the check --------------------------------------------------------------------------------

bool Memory::is_shared(const void* p) const {
  return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(shared_) < kMaxShared;
}

void Memory::check(const Fiber& me, const void* p, size_t bytes, Access access, Site site) {
  const auto a = reinterpret_cast<uintptr_t>(p);
  if (!is_shared(p)) return check_global(me, a, bytes, access, site);
  const size_t offset = a - reinterpret_cast<uintptr_t>(shared_);
  if (offset > shared_bytes_ || bytes > shared_bytes_ - offset) {
    fail(site, "%s shared byte %zu, but the block has %zu", verb(access), offset + bytes - 1,
         shared_bytes_);
  }
  const Place place{.kind = "shared",
                    .tensor = -1,
                    .offset = offset,
                    .bytes = shared_shadow_ + offset,
                    .blank_since = block_time_,
                    .readable_since = block_time_};
  check_bytes(me, place, bytes, access, site);
}

void Memory::check_global(const Fiber& me, uintptr_t a, size_t bytes, Access access, Site site) {
  const Tensor* t = find(a, bytes, is_write(access));
  const bool input = !t && is_write(access) && (t = find(a, bytes, false));
  if (!t) {
    if (in_image(a) && !is_write(access)) return;
    complain_outside(a, bytes, site);
  }
  const Place place{.kind = "global",
                    .tensor = static_cast<int>(t - tensors_.data()),
                    .offset = a - t->begin,
                    .bytes = shadow_of(a),
                    .blank_since = launch_time_,
                    .readable_since = t->fresh ? 1u : 0u};
  if (input) complain(place, 0, access, Fault::input, site);
  check_bytes(me, place, bytes, access, site);
}

void Memory::check_bytes(const Fiber& me, const Place& place, size_t bytes, Access access,
                         Site site) {
  // Mostly the bytes of an access have one history, so that one verdict serves for all.
  Byte* const b = place.bytes;
  const bool alike = std::memcmp(b, b + 1, (bytes - 1) * sizeof(Byte)) == 0;
  for (size_t i = 0; i < (alike ? 1 : bytes); ++i) {
    const Fault fault = judge(me, place, b[i], access);
    if (fault != Fault::none) complain(place, i, access, fault, site);
    record(me, place, b[i], access);
  }
  if (alike) std::fill(b + 1, b + bytes, b[0]);
}

Memory::Fault Memory::judge(const Fiber& me, const Place& place, const Byte& b,
                            Access access) const {
  const bool written = b.write.time >= place.blank_since;
  if (b.write.pending && written) return Fault::pending;
  if (access != Access::write && b.write.time < place.readable_since) return Fault::unwritten;
  if (access == Access::constant && written) return Fault::not_constant;
  const bool both_atomic = access == Access::atomic && b.write.atomic;
  if (written && !both_atomic && !ordered(me, b.write)) return Fault::race_with_write;
  if (is_write(access) && b.read.time >= place.blank_since && !ordered(me, b.read))
    return Fault::race_with_read;
  return Fault::none;
}

void Memory::record(const Fiber& me, const Place& place, Byte& b, Access access) const {
  if (!is_write(access)) return join(me, place, b.read);
  const bool atomic = access == Access::atomic;
  // A write that is ordered before this one is forgotten; atomics need not be ordered.
  if (!atomic || !b.write.atomic) b.write.time = 0;
  join(me, place, b.write);
  b.write.atomic = atomic;
  b.write.pending = false;
}

// Adds the running fiber to those who did it, dropping the ones that are ordered before it:
// whatever is ordered after it is ordered after them too. The time of several is that of the last.
void Memory::join(const Fiber& me, const Place& place, Who& who) const {
  const uint8_t warp = me.index / kWarpSize;
  const uint32_t lane = 1u << me.lane;
  if (who.time < place.blank_since) {
    who = {now_, lane, warp, false, false, false};
  } else if (who.time < block_time_) {
    who = {now_, lane, warp, true, false, false};
  } else if (ordered_in_block(me, who)) {
    who = {now_, lane, warp, who.elsewhere, false, false};
  } else {
    who.time = now_;
    who.lanes |= lane;
    if (who.warp != warp) who.warp = Who::kSeveralWarps;
  }
}

void Memory::set_pending(const void* p, size_t bytes, bool pending) {
  Byte* b = shared_shadow_ + (static_cast<const char*>(p) - shared_);
  for (size_t i = 0; i < bytes; ++i) b[i].write.pending = pending;
}

// ---- messages ---------------------------------------------------------------------------------

void Memory::complain(const Place& place, size_t i, Access access, Fault fault, Site site) const {
  char name[64], who[64];
  int end = std::snprintf(name, sizeof name, "%s byte %zu", place.kind, place.offset + i);
  if (place.tensor >= 0)
    std::snprintf(name + end, sizeof name - end, " of tensor %d", place.tensor);

  const bool after_write = fault == Fault::race_with_write;
  const Who& w = after_write ? place.bytes[i].write : place.bytes[i].read;
  if (w.elsewhere || w.time < block_time_)
    std::snprintf(who, sizeof who, "another block of the same launch");
  else if (w.warp == Who::kSeveralWarps || __builtin_popcount(w.lanes) != 1)
    std::snprintf(who, sizeof who, "several threads with no barrier between");
  else
    std::snprintf(who, sizeof who, "thread %d with no barrier between",
                  w.warp * kWarpSize + __builtin_ctz(w.lanes));

  switch (fault) {
    case Fault::pending: fail(site, "%s %s before cp.async's wait", verb(access), name);
    case Fault::input: fail(site, "%s %s, an input tensor", verb(access), name);
    case Fault::unwritten: fail(site, "%s %s, which nobody wrote", verb(access), name);
    case Fault::not_constant:
      fail(site, "%s %s as constant memory, but this launch writes it", verb(access), name);
    default:
      fail(site, "race: %s %s, %s by %s", verb(access), name, after_write ? "written" : "read",
           who);
  }
}

// Names the nearest tensor, of two the one that lies before: an index too large is the usual
// mistake.
void Memory::complain_outside(uintptr_t a, size_t bytes, Site site) const {
  constexpr auto kWhat = "touches global memory outside every tensor of the call";
  if (tensors_.empty()) fail(site, "%s, which has none", kWhat);
  const auto rank = [&](const Tensor& t) {
    const bool before = a < t.begin;
    return std::pair<uintptr_t, bool>(before ? t.begin - a : a + bytes - t.end, before);
  };
  const Tensor* nearest = &tensors_[0];
  for (const Tensor& t : tensors_)
    if (rank(t) < rank(*nearest)) nearest = &t;
  const auto [distance, before] = rank(*nearest);
  fail(site, "%s, %zu bytes %s tensor %td (%zu bytes)", kWhat, distance,
       before ? "before" : "past the end of", nearest - tensors_.data(),
       nearest->end - nearest->begin);
}

}  // namespace simt
