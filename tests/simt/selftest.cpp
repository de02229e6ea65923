// tests/simt/selftest.cpp: simt_selftest BUG [ORDER] runs the kernels with that bug and prints what
// the harness says of it; then, in the same process, everything without a bug, which must pass: a
// failed launch leaves nothing behind. Without a bug (none) it prints times instead; "list" names
// the bugs. Exit status: 0 if the bug was caught and the rest passed, 1 if not, 2 for a bug that
// does not exist.
#include "selftest.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

namespace {

using selftest::Case;

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  selftest::add_block_cases(cases);
  selftest::add_warp_cases(cases);
  selftest::add_matrix_cases(cases);
  selftest::add_global_cases(cases);
  selftest::add_scalar_cases(cases);
  return cases;
}

// What went wrong, or "".
std::string run(const Case& test) {
  std::string error;
  try {
    test.run();
  } catch (const std::exception& e) {
    error = e.what();
  }
  simt::clear_exposed();
  return error;
}

std::string run_all(const std::vector<Case>& cases, std::string_view bug) {
  std::string error;
  for (const Case& test : cases)
    if (test.bug == bug && error.empty()) error = run(test);
  return error;
}

// Launches from several host threads, some of which fail, do not disturb each other.
bool threads_are_independent(const std::vector<Case>& cases) {
  std::vector<std::string> errors(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < errors.size(); ++i)
    threads.emplace_back(
        [&, i] { errors[i] = run_all(cases, i % 2 ? "missing_barrier" : "none"); });
  for (std::thread& t : threads) t.join();
  return errors[0].empty() && errors[2].empty() && !errors[1].empty() && errors[1] == errors[3];
}

void print_times(const std::vector<Case>& cases) {
  for (const Case& test : cases) {
    if (test.bug != "none") continue;
    const auto start = std::chrono::steady_clock::now();
    run(test);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    std::printf("%-16s %8.2f ms\n", test.family, time.count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view bug = argc > 1 ? argv[1] : "none";
  simt::set_order(argc > 2 ? std::atoi(argv[2]) : 0);
  const std::vector<Case> cases = all_cases();
  if (bug == "list") {
    for (const Case& test : cases)
      if (test.bug != "none") std::printf("%s\n", test.bug.data());
    return 0;
  }
  const auto has_bug = [&](const Case& test) { return test.bug == bug; };
  if (std::none_of(cases.begin(), cases.end(), has_bug)) return 2;
  const std::string caught = run_all(cases, bug);
  if (!caught.empty()) std::printf("%s\n", caught.c_str());
  if (caught.empty() != (bug == "none")) return 1;
  const std::string after = run_all(cases, "none");
  if (!after.empty()) std::printf("then, without a bug: %s\n", after.c_str());
  if (!after.empty() || (bug == "none" && !threads_are_independent(cases))) return 1;
  if (bug == "none") print_times(cases);
  return 0;
}
