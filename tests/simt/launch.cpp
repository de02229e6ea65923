// tests/simt/launch.cpp: from a launch to its blocks, and from a failure to an exception.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "machine.h"

namespace simt {
namespace {

thread_local int default_order = 0;

void refuse(const std::string& why) { throw std::runtime_error("launch refused: " + why); }

void check_shape(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64)
    refuse(std::to_string(threads) + " threads per block; 1 to 1024 are allowed, 64 along z");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) refuse("the grid is empty");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    refuse("the grid is larger than 2147483647 along x or 65535 along y or z");
  if (shared_bytes > kMaxShared) {
    refuse(std::to_string(shared_bytes) + " bytes of shared memory; a block has " +
           std::to_string(kMaxShared) + " (99 KiB) on every GPU since sm_80");
  }
}

std::vector<uint64_t> block_order(uint64_t num_blocks, int kind) {
  std::vector<uint64_t> order(num_blocks);
  std::iota(order.begin(), order.end(), 0);
  if (kind == 1) std::reverse(order.begin(), order.end());
  if (kind > 1) std::shuffle(order.begin(), order.end(), std::mt19937(kind));
  return order;
}

size_t offset_of(const void* code) {
  Dl_info library;
  if (!dladdr(code, &library)) return 0;
  return static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase);
}

// "file:line" of an instruction of this library, from addr2line, and of the kernel's line into
// which it was inlined; without that tool, the command that would tell.
std::string source_of(const void* pc) {
  Dl_info library;
  if (!pc || !dladdr(pc, &library)) return "unknown place";
  char command[1024];
  const size_t call = offset_of(pc) - 1;  // pc, where the call returns to, may be another line
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx", library.dli_fname, call);
  std::string inner, outer;
  if (FILE* pipe = popen((std::string(command) + " 2>/dev/null").c_str(), "r")) {
    char buffer[512];
    while (std::fgets(buffer, sizeof buffer, pipe)) {
      const char* begin = std::strncmp(buffer, "./", 2) == 0 ? buffer + 2 : buffer;
      outer = std::string(begin, std::strcspn(begin, " \n"));  // "file:line (discriminator 3)"
      if (inner.empty()) inner = outer;
    }
    pclose(pipe);
  }
  if (inner.empty() || inner[0] == '?') return command;
  return inner == outer ? inner : inner + " in " + outer;
}

std::string place_of_error(const Machine& m) {
  if (!m.error_site.file) return source_of(m.access_pc);
  return std::string(m.error_site.file) + ":" + std::to_string(m.error_site.line);
}

}  // namespace

void expose(const void* begin, size_t bytes, bool writable) {
  machine().memory.expose(begin, bytes, writable, false);
}
void expose_fresh(const void* begin, size_t bytes) {
  machine().memory.expose(begin, bytes, true, true);
}
void clear_exposed() { machine().memory.clear_exposed(); }
void set_order(int order) { default_order = order; }

void* shared_memory(size_t bytes) {
  Memory& memory = active->memory;
  active->access_pc = __builtin_return_address(0);
  if (bytes > memory.shared_bytes())
    fail({}, "shared_memory of %zu bytes, but the block has %zu", bytes, memory.shared_bytes());
  return memory.shared();
}

void Machine::note(const SimtLaunched& now) {
  for (SimtLaunched& known : launched) {
    if (known.kernel != now.kernel) continue;
    known.threads = std::max(known.threads, now.threads);
    known.shared_bytes = std::max(known.shared_bytes, now.shared_bytes);
    return;
  }
  launched.push_back(now);
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel) {
  if (active) fail({}, "a kernel launches a kernel");
  check_shape(grid, block, shared_bytes);
  const char* wanted = std::getenv("LMX_SIMT_ORDER");
  const int order = wanted ? std::atoi(wanted) : default_order;
  Machine& m = machine();
  m.kernel = kernel;
  m.grid_dim = grid;
  m.block_dim = block;
  m.num_threads = static_cast<int>(block.x * block.y * block.z);
  m.error[0] = '\0';
  m.set_order(order);
  m.note({offset_of(kernel.kernel), static_cast<size_t>(m.num_threads), shared_bytes});
  m.memory.begin_launch();
  for (const uint64_t i : block_order(uint64_t{grid.x} * grid.y * grid.z, order)) {
    m.block.x = static_cast<unsigned>(i % grid.x);
    m.block.y = static_cast<unsigned>(i / grid.x % grid.y);
    m.block.z = static_cast<unsigned>(i / grid.x / grid.y);
    m.memory.begin_block(shared_bytes);
    m.run_block();
    if (m.error[0]) throw std::runtime_error(std::string(m.error) + " (" + place_of_error(m) + ")");
  }
}

}  // namespace simt

size_t simt_launched(SimtLaunched* out, size_t capacity) {
  auto& launched = simt::machine().launched;
  const size_t count = launched.size();
  std::copy_n(launched.begin(), std::min(count, capacity), out);
  launched.clear();
  return count;
}
