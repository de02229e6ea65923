// tests/simt/fiber.cpp: the threads of a block, taking turns on one host thread.
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>
#include <numeric>
#include <random>

#include "machine.h"

// Saves the six registers a call must preserve, swaps stacks, returns on the other one: 20
// instructions where swapcontext() also makes two system calls. The control words of the
// floating-point units are the same on both sides.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, . - simt_switch
)");

namespace simt {
namespace {

constexpr size_t kGuardBytes = 4096;     // at the low end of each stack: an overflow faults at once
constexpr uint64_t kMaxSteps = 1 << 26;  // of a block: some seconds, far beyond any test's need

// What a fresh fiber's first switch returns into: `entry`, as if null had called it.
void* first_frame(char* stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + kStackBytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(entry);
  return top - 8;  // six registers below, whatever they hold
}

[[noreturn]] void leave_block() {
  Machine& m = *active;
  simt_switch(&m.running->stack_pointer, m.host_stack_pointer);
  __builtin_unreachable();
}

void resume(Fiber* next) {
  Fiber* from = active->running;
  if (next == from) return;
  active->running = next;
  simt_switch(&from->stack_pointer, next->stack_pointer);
}

// The whole life of a thread. It does not return: there is nothing to return to.
void enter() {
  Machine& m = *active;
  m.kernel.call(m.kernel.params);
  Fiber& me = *m.running;
  if (!me.copies.empty()) fail(me.copies.back().site, "returns before cp.async's wait");
  me.state = State::done;
  if (++m.num_done == m.num_threads) leave_block();
  yield();
}

}  // namespace

constinit thread_local Machine* active = nullptr;

Machine& machine() {
  static thread_local const std::unique_ptr<Machine> mine = std::make_unique<Machine>();
  return *mine;
}

Machine::Machine() {
  void* p = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  stacks = static_cast<char*>(p);
  for (int i = 0; i < kMaxThreads; ++i) mprotect(stacks + i * kStackBytes, kGuardBytes, PROT_NONE);
}
Machine::~Machine() { munmap(stacks, kMaxThreads * kStackBytes); }

uint3 thread_index() { return active->running->thread; }
uint3 block_index() { return active->block; }
dim3 block_dim() { return active->block_dim; }
dim3 grid_dim() { return active->grid_dim; }
int lane_index() { return active->running->lane; }

void count_step() {
  if (++active->num_steps > kMaxSteps) {
    fail({},
         "does not end (threads change places at barriers and warp operations only, so that none "
         "can wait for what another writes)");
  }
}

void yield() {
  Machine& m = *active;
  const int p = m.place[m.running - m.fibers];
  for (int k = 1; k <= m.num_threads; ++k) {
    Fiber* f = &m.fibers[m.order[(p + k) % m.num_threads]];
    if (f->state == State::ready) return resume(f);
  }
  fail_stuck();
}

void fail(Site site, const char* format, ...) {
  Machine& m = *active;
  const int end = std::snprintf(m.error, sizeof m.error, "block (%u,%u,%u) thread %d: ", m.block.x,
                                m.block.y, m.block.z, m.running->index);
  va_list args;
  va_start(args, format);
  std::vsnprintf(m.error + end, sizeof m.error - end, format, args);
  va_end(args);
  m.error_site = site;
  leave_block();
}

void Machine::set_order(int kind) {
  std::iota(order, order + num_threads, 0);
  if (kind == 1) std::reverse(order, order + num_threads);
  if (kind > 1) std::shuffle(order, order + num_threads, std::mt19937(kind));
  for (int i = 0; i < num_threads; ++i) place[order[i]] = i;
}

void Machine::run_block() {
  num_at_block = num_done = 0;
  std::fill(std::begin(num_at_warp), std::end(num_at_warp), 0);
  num_steps = 0;
  for (int i = 0; i < num_threads; ++i) {
    const unsigned x = block_dim.x, y = block_dim.y;
    Fiber& f = fibers[i];
    f.stack_pointer = first_frame(stacks + i * kStackBytes, enter);
    f.thread = {i % x, i / x % y, i / (x * y)};
    f.index = i;
    f.lane = i % kWarpSize;
    f.state = State::ready;
    f.site = {};
    std::fill(f.seen, f.seen + kWarpSize, 0);
    f.copies.clear();
    f.num_groups = 0;
  }
  running = &fibers[order[0]];
  active = this;
  simt_switch(&host_stack_pointer, running->stack_pointer);
  active = nullptr;
  running = nullptr;
}

}  // namespace simt
