// tests/simt/hooks.cpp: what the compiler makes a kernel call. -fsanitize=thread announces every
// load and store, -fsanitize=alignment,bounds-strict,... what C++ leaves undefined; instead of
// their runtime libraries they find these functions. memcpy and its kin, which no compiler
// announces, have other names in kernels (simt.h). Host code of a .cu comes here too and is let
// through.
#include <cstring>

#include "machine.h"

namespace simt {

void touch(const void* p, size_t bytes, Access access, Site site) {
  Machine& m = *active;
  count_step();
  const auto a = reinterpret_cast<uintptr_t>(p);
  const auto within = [&](const void* begin, size_t size) {
    const uintptr_t offset = a - reinterpret_cast<uintptr_t>(begin);
    return offset < size && bytes <= size - offset;
  };
  const Fiber& me = *m.running;
  if (within(m.stacks, kMaxThreads * kStackBytes)) {
    if (within(m.stacks + me.index * kStackBytes, kStackBytes)) return;
    fail(site, "touches a local variable of another thread");
  }
  if (within(m.kernel.params, m.kernel.params_bytes) && access == Access::read) return;
  m.memory.check(me, p, bytes, access, site);
}

void touch_global(const void* p, size_t bytes, Access access, Site site) {
  if (active->memory.is_shared(p))
    fail(site, "an instruction for global memory gets a shared address");
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    fail(site, "misaligned: %zu bytes at an address that is no multiple of it", bytes);
  touch(p, bytes, access, site);
}

namespace {

void hook(const void* p, size_t bytes, Access access, const void* pc) {
  if (!active || bytes == 0) return;
  active->access_pc = pc;
  touch(p, bytes, access, {});
}

// What UBSan tells of a pointer of the wrong alignment; the layout is fixed by its interface.
struct Misaligned {
  struct Type {
    uint16_t kind, info;
    char name[1];
  };
  const char* file;
  uint32_t line, column;
  const Type* type;
  uint8_t log2_alignment, what;
};

}  // namespace
}  // namespace simt

#define SIMT_HOOK(name, access, bytes)                                       \
  extern "C" void __tsan_##name(void* p) {                                   \
    simt::hook(p, bytes, simt::Access::access, __builtin_return_address(0)); \
  }
#define SIMT_HOOKS(bytes)                       \
  SIMT_HOOK(read##bytes, read, bytes)           \
  SIMT_HOOK(write##bytes, write, bytes)         \
  SIMT_HOOK(unaligned_read##bytes, read, bytes) \
  SIMT_HOOK(unaligned_write##bytes, write, bytes)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

extern "C" {
void __tsan_read_range(void* p, size_t bytes) {
  simt::hook(p, bytes, simt::Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t bytes) {
  simt::hook(p, bytes, simt::Access::write, __builtin_return_address(0));
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// The guard of a launcher's static variable, the one atomic that host code of a .cu contains.
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

#define SIMT_UNDEFINED(...)                                \
  if (simt::active) {                                      \
    simt::active->access_pc = __builtin_return_address(0); \
    simt::fail({}, __VA_ARGS__);                           \
  }
void __ubsan_handle_type_mismatch_v1(const simt::Misaligned* found, uintptr_t p) {
  const uintptr_t alignment = uintptr_t{1} << found->log2_alignment;
  SIMT_UNDEFINED("misaligned: an address used as %s is %zu modulo %zu", found->type->name,
                 p % alignment, alignment)
}
void __ubsan_handle_out_of_bounds(void*, intptr_t index) {
  SIMT_UNDEFINED("index %td is outside the array", index)
}
void __ubsan_handle_shift_out_of_bounds(void*, uintptr_t, uintptr_t) {
  SIMT_UNDEFINED("shifts by less than 0 or by the type's width or more")
}
void __ubsan_handle_divrem_overflow(void*, uintptr_t, uintptr_t) {
  SIMT_UNDEFINED("divides by zero")
}
void __ubsan_handle_float_cast_overflow(void*, uintptr_t) {
  SIMT_UNDEFINED("casts a float to an integer that cannot hold it")
}

// simt.h gives these names to the kernels' memcpy, memmove and memset.
void* simt_memcpy(void* to, const void* from, size_t bytes) {
  simt::hook(from, bytes, simt::Access::read, __builtin_return_address(0));
  simt::hook(to, bytes, simt::Access::write, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
void* simt_memmove(void* to, const void* from, size_t bytes) {
  simt::hook(from, bytes, simt::Access::read, __builtin_return_address(0));
  simt::hook(to, bytes, simt::Access::write, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void* simt_memset(void* to, int value, size_t bytes) {
  simt::hook(to, bytes, simt::Access::write, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}
}
