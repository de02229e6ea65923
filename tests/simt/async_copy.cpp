// tests/simt/async_copy.cpp: cp.async. The bytes arrive as late as they may, at the wait, and until
// then their target holds nothing anyone may touch.
#include <cstring>

#include "machine.h"

namespace simt {

void copy_later(void* shared, const void* global, size_t bytes, Site site) {
  Machine& m = *active;
  const auto misaligned = [&](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  if (misaligned(shared) || misaligned(global)) {
    fail(site, "misaligned: cp.async of %zu bytes to or from an address that is no multiple of it",
         bytes);
  }
  if (!m.memory.is_shared(shared)) fail(site, "cp.async into memory that is not shared");
  touch(shared, bytes, Access::write, site);
  if (global) touch_global(global, bytes, Access::read, site);
  m.memory.set_pending(shared, bytes, true);
  Fiber& me = *m.running;
  me.copies.push_back({static_cast<char*>(shared), static_cast<const char*>(global),
                       static_cast<uint32_t>(bytes), me.num_groups, site});
}

void commit_copies() { ++active->running->num_groups; }

void wait_copies(uint32_t groups_left, Site site) {
  Machine& m = *active;
  Fiber& me = *m.running;
  auto done = me.copies.begin();
  for (; done != me.copies.end() && done->group + groups_left < me.num_groups; ++done) {
    m.memory.set_pending(done->to, done->bytes, false);
    touch(done->to, done->bytes, Access::write, site);  // from here on a barrier shows it to others
    if (done->from)
      std::memcpy(done->to, done->from, done->bytes);
    else
      std::memset(done->to, 0, done->bytes);
  }
  me.copies.erase(me.copies.begin(), done);
}

}  // namespace simt
