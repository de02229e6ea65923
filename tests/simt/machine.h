// tests/simt/machine.h: the emulated multiprocessor, private to the harness's .cpp files.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "harness.h"
#include "memory.h"

namespace simt {

enum class State : uint8_t { ready, at_block, at_warp, done };

struct Copy {  // a cp.async under way
  char* to;
  const char* from;
  uint32_t bytes, group;
  Site site;
};

// One thread of the running block.
struct Fiber {
  void* stack_pointer;  // while another fiber runs
  uint3 thread;
  int index, lane;  // linear in the block, and in the warp
  State state;
  const char* what;  // the rendezvous it waits at, with its place, participants and argument
  Site site;
  unsigned mask;
  void* arg;
  uint32_t seen[kWarpSize];  // what lane i did before time seen[i] is ordered before what this does
  std::vector<Copy> copies;  // oldest first
  uint32_t num_groups;       // committed so far
};

// A block runs on one host thread; its fibers take turns and change only where one waits.
struct Machine {
  Machine();
  ~Machine();
  void set_order(int kind);            // of num_threads threads
  void note(const SimtLaunched& now);  // for simt_launched()
  void run_block();                    // `block`, to its end or until `error` is set

  Fiber fibers[kMaxThreads];
  Fiber* running = nullptr;
  void* host_stack_pointer = nullptr;
  char* stacks;
  int num_threads = 0, num_done = 0, num_at_block = 0;
  int num_at_warp[kMaxThreads / kWarpSize];
  int order[kMaxThreads], place[kMaxThreads];  // order[place[i]] == i

  dim3 grid_dim, block_dim;
  uint3 block = {};
  Kernel kernel = {};
  uint64_t num_steps = 0;  // accesses and rendezvous of the running block

  char error[1024] = "";  // empty while all is well
  Site error_site{};
  const void* access_pc = nullptr;  // the last instrumented load or store

  std::vector<SimtLaunched> launched;
  Memory memory;
};

// The machine whose fiber runs on this host thread right now; null in host code. The kernels' loads
// and stores ask for it, so it is kept where one instruction reaches it.
extern constinit thread_local Machine* active __attribute__((tls_model("initial-exec")));
Machine& machine();  // this host thread's, made at its first use

[[noreturn]] void fail_stuck();
void yield();  // to the next fiber that is ready
void count_step();

}  // namespace simt
