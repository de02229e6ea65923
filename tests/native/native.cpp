// tests/native/native.cpp: parts of csrc/common that no op shows directly, for
// tests/test_native.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "common/philox.h"
#include "common/pool.h"
#include "common/py_tensor.h"

namespace py = pybind11;

namespace {
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, uint32_t key0, uint32_t key1) {
  const lmx::Philox4 r = lmx::philox4x32({{c[0], c[1], c[2], c[3]}}, key0, key1);
  return {r.word[0], r.word[1], r.word[2], r.word[3]};
}

int64_t row_sum(py::handle tensor, py::handle dtype, int64_t rows, int64_t columns) {
  const auto* data = lmx::tensor_data<int32_t>(tensor, {.method = "test.row_sum",
                                                        .name = "words",
                                                        .dtype = dtype,
                                                        .rows = rows,
                                                        .columns = columns});
  int64_t sum = 0;
  for (int64_t i = 0; i < rows * columns; ++i) sum += data[i];
  return sum;
}

// The sum of squares below n, each a task.
int64_t sum_in_pool(int num_threads, int n) {
  const py::gil_scoped_release release;
  lmx::Pool pool(num_threads);
  std::vector<int64_t> square(n);
  std::vector<std::shared_ptr<lmx::Task>> tasks;
  for (int i = 0; i < n; ++i)
    tasks.push_back(pool.submit([&square, i] { square[i] = int64_t{i} * i; }));
  int64_t sum = 0;
  for (int i = 0; i < n; ++i) tasks[i]->wait(), sum += square[i];
  return sum;
}

void throw_in_pool() {
  lmx::Pool pool(1);
  pool.submit([] { throw std::invalid_argument("from the pool"); })->wait();
}

// A waiter takes over what no thread has begun: with its only thread blocked, the pool still ends.
bool waiter_works() {
  lmx::Pool pool(1);
  std::mutex gate;
  gate.lock();
  std::atomic<bool> blocked{false};
  const auto first = pool.submit([&] {
    blocked = true;
    const std::lock_guard wait(gate);
  });
  while (!blocked) std::this_thread::yield();
  bool ran = false;
  pool.submit([&ran] { ran = true; })->wait();
  const bool first_is_still_there = !first->done();
  gate.unlock();
  first->wait();
  return ran && first_is_still_there && first->done();
}

// Work that looks at its flag ends early.
bool cancel_works() {
  lmx::Pool pool(1);
  lmx::CancelFlag flag;
  const auto task = pool.submit([&flag] {
    while (!flag.cancelled()) std::this_thread::yield();
  });
  flag.cancel();
  task->wait();
  return flag.cancelled();
}

int shared_pool_answers(int num_threads) {
  int answer = 0;
  lmx::Pool::shared(num_threads).submit([&answer] { answer = 42; })->wait();
  return answer;
}

// Runs on the pool's thread alone: a pool whose thread is missing would never end it.
bool shared_pool_has_threads() {
  std::atomic<bool> ran{false};
  const auto task = lmx::Pool::shared(1).submit([&ran] { ran = true; });
  for (int i = 0; i < 5000 && !task->done(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return ran;
}
}  // namespace

PYBIND11_MODULE(lmx_native, m) {
  m.def("philox", &philox);
  m.def("row_sum", &row_sum);
  m.def("sum_in_pool", &sum_in_pool);
  m.def("throw_in_pool", &throw_in_pool);
  m.def("waiter_works", &waiter_works);
  m.def("cancel_works", &cancel_works);
  m.def("shared_pool_answers", &shared_pool_answers);
  m.def("shared_pool_has_threads", &shared_pool_has_threads);
  m.def("shared_pool_size", [] { return lmx::Pool::shared(1).num_threads(); });
}
