// tests/simt/harness.h: what the device language (simt.h, ptx.h), launch() and the bindings ask of
// the harness. Everything here is about the calling host thread: each has its own machine, so
// launches from several threads do not meet.
#pragma once
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <tuple>

// For tools/cuda_docs.py: the kernels this host thread has launched since the last call, each once,
// with the largest block and shared memory. `kernel` is the offset of its code in this library.
// Returns how many there are; at most `capacity` are written.
struct SimtLaunched {
  size_t kernel, threads, shared_bytes;
};
extern "C" __attribute__((visibility("default"))) size_t simt_launched(SimtLaunched* out,
                                                                       size_t capacity);

namespace simt {

// Where in the kernel something is done; as the last, defaulted parameter it is the caller's place.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};
#define SIMT_SITE ::simt::Site site = ::simt::Site::here()

// ---- memory a kernel may touch ----------------------------------------------------------------
// Until clear_exposed(); an access to global memory anywhere else fails. Ranges may overlap: a byte
// is writable if one of its ranges is.
void expose(const void* begin, size_t bytes, bool writable);
// Writable memory whose contents nobody may rely on: filled with ones (NaN, -1), and a byte read
// before a kernel has written it fails.
void expose_fresh(const void* begin, size_t bytes);
void clear_exposed();

// ---- launch -----------------------------------------------------------------------------------
// In which order threads and blocks run: 0 forwards, 1 backwards, else the seed of a shuffle. The
// environment variable LMX_SIMT_ORDER wins.
void set_order(int order);

// Runs call(params), which calls the kernel, to its end in every thread; throws std::runtime_error
// with what the kernel did wrong, and where. `kernel` is its address, for simt_launched().
using Call = void (*)(const void* params);
struct Kernel {
  const void* kernel;
  Call call;
  const void* params;
  size_t params_bytes;
};
void run(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel);

// The parameters are one object in memory, so that a kernel may read it and nothing beside it.
template <typename... Params>
void launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Params...),
            Params... params) {
  using All = std::tuple<void (*)(Params...), Params...>;
  const All all(kernel, params...);
  const Call call = [](const void* p) {
    std::apply([](auto f, const auto&... args) { f(args...); }, *static_cast<const All*>(p));
  };
  run(grid, block, shared_bytes, {reinterpret_cast<const void*>(kernel), call, &all, sizeof all});
}

// ---- inside a kernel --------------------------------------------------------------------------
// Of the running thread; they cannot change while a thread's code looks at them, hence const.
#define SIMT_CONST __attribute__((const))
uint3 thread_index() SIMT_CONST;
uint3 block_index() SIMT_CONST;
dim3 block_dim() SIMT_CONST;
dim3 grid_dim() SIMT_CONST;
int lane_index() SIMT_CONST;

void* shared_memory(size_t bytes);

// Ends the launch, which then throws. printf's way and not std::string: the linker may give us the
// copy of an inline function that a kernel's file compiled, with loads and stores announced to
// ourselves.
[[noreturn, gnu::format(printf, 2, 3)]] void fail(Site site, const char* format, ...);

// A rendezvous: the last thread to arrive calls `run` for all of them. args[i] is thread i's (lane
// i's) argument, null if it does not take part.
using Run = void (*)(void* const* args, int count);
void meet_block(const char* what, Site site, void* arg, Run run);
void meet_warp(const char* what, Site site, unsigned mask, void* arg, Run run, bool orders_memory);

int count_in_block(const char* what, Site site, bool predicate);
uint64_t shuffle(const char* what, Site site, unsigned mask, uint64_t bits, int source_lane);
unsigned match(const char* what, Site site, unsigned mask, uint64_t bits);
uint32_t reduce(const char* what, Site site, unsigned mask, uint32_t value,
                uint32_t (*combine)(uint32_t, uint32_t));

// Checks an access the compiler's instrumentation does not see. `constant` is a read through the
// path for data that nobody writes during the launch (ld.global.nc).
enum class Access { read, constant, write, atomic };
void touch(const void* p, size_t bytes, Access access, Site site);
// The same for an instruction that takes global memory only, at a multiple of its size.
void touch_global(const void* p, size_t bytes, Access access, Site site);

// cp.async: checked now, copied at the wait. `global` null writes zeros.
void copy_later(void* shared, const void* global, size_t bytes, Site site);
void commit_copies();
void wait_copies(uint32_t groups_left, Site site);

void load_matrices(uint32_t* out, int count, bool transposed, const void* row, Site site);
enum class Half { bf16, f16 };
void multiply_16x8x16(float* d, const uint32_t* a, const uint32_t* b, Half type, Site site);

}  // namespace simt
