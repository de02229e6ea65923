// grammar/host/module.cpp: the host classes in Python, as lmx._C.grammar.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "batch.h"
#include "common/py_dlpack.h"
#include "common/py_tensor.h"
#include "device.h"
#include "lazy.h"
#include "module.h"
#include "regex.h"
#include "registry.h"

namespace py = pybind11;

namespace lmx::grammar {
namespace {
py::object torch_dtype(const char* name) { return py::module_::import("torch").attr(name); }
py::handle int32_dtype() {
  static PyObject* dtype = torch_dtype("int32").release().ptr();
  return dtype;
}

// A Matcher that operators can find; entered at the first call of handle().
class NumberedMatcher : public Matcher {
 public:
  using Matcher::Matcher;
  NumberedMatcher(const NumberedMatcher& other) : Matcher(other) {}
  ~NumberedMatcher() {
    if (handle_) Registry::instance().remove(handle_);
  }
  int64_t handle() {
    if (!handle_) handle_ = Registry::instance().add(this);
    return handle_;
  }

 private:
  int64_t handle_ = 0;
};

uint32_t* bitmask_data(const char* method, py::handle bitmask, const Matcher& matcher,
                       int64_t* rows) {
  const int32_t num_words = matcher.grammar().vocabulary().num_words();
  if (void* data = int32_rows(bitmask, num_words, rows)) return static_cast<uint32_t*>(data);
  return tensor_data<uint32_t>(bitmask,
                               {.method = method,
                                .name = "bitmask",
                                .dtype = int32_dtype(),
                                .rows = -1,
                                .columns = num_words},
                               rows);
}

void check_row(const char* method, int64_t row, int64_t rows) {
  if (row < 0 || row >= rows)
    throw py::value_error(std::string("lmx.") + method + ": expected row in [0, " +
                          std::to_string(rows) + "), got " + std::to_string(row));
}

bool fill(Matcher& matcher, py::handle bitmask, int64_t row) {
  int64_t rows = 0;
  uint32_t* data = bitmask_data("Matcher.fill", bitmask, matcher, &rows);
  check_row("Matcher.fill", row, rows);
  return matcher.fill(data + row * matcher.grammar().vocabulary().num_words()) != kAllAllowed;
}

// Nanoseconds of a fill, of accepting a token, of a rollback and of a fork, without Python: the
// mean of the fastest of some rounds of `count`. For benches.
py::tuple time_calls(Matcher& matcher, int64_t token, int64_t count) {
  constexpr int kRounds = 20;
  using Clock = std::chrono::steady_clock;
  std::vector<uint32_t> row(matcher.grammar().vocabulary().num_words());
  std::vector<Matcher> forks;
  forks.reserve(count);
  double best[4] = {1e18, 1e18, 1e18, 1e18};
  const auto timed = [&](double& least, const auto& f) {
    const auto start = Clock::now();
    f();
    const std::chrono::duration<double, std::nano> taken = Clock::now() - start;
    least = std::min(least, taken.count() / static_cast<double>(count));
  };
  for (int round = 0; round < kRounds; ++round) {
    timed(best[0], [&] {
      for (int64_t i = 0; i < count; ++i) matcher.fill(row.data());
    });
    int64_t accepted = 0;
    timed(best[1], [&] {
      for (int64_t i = 0; i < count; ++i) accepted += matcher.accept(token);
    });
    timed(best[2], [&] {
      for (int64_t i = 0; i < accepted; ++i) matcher.rollback(1);
    });
    timed(best[3], [&] {
      for (int64_t i = 0; i < count; ++i) forks.emplace_back(matcher);
    });
    forks.clear();
  }
  return py::make_tuple(best[0], best[1], best[2], best[3]);
}

// A batch whose tensors and matchers stay alive with it.
struct PyBatch {
  FillBatch batch;
  std::vector<int32_t> status;
  py::object keep;
};

std::shared_ptr<PyBatch> make_batch(const py::list& matchers, py::handle bitmask,
                                    const std::optional<std::vector<int64_t>>& rows) {
  auto b = std::make_shared<PyBatch>();
  for (const py::handle m : matchers) b->batch.matchers.push_back(m.cast<Matcher*>());
  const size_t count = b->batch.matchers.size();
  b->status.assign(count, 0);
  b->batch.status = b->status.data();
  b->keep = py::make_tuple(matchers, bitmask);
  if (count == 0) return b;
  int64_t num_rows = 0;
  for (const Matcher* m : b->batch.matchers)
    b->batch.bitmask = bitmask_data("BatchMatcher.fill", bitmask, *m, &num_rows);
  b->batch.num_words = b->batch.matchers[0]->grammar().vocabulary().num_words();
  for (size_t i = 0; i < count; ++i) b->batch.rows.push_back(static_cast<int64_t>(i));
  if (rows) b->batch.rows = *rows;
  if (b->batch.rows.size() != count)
    throw py::value_error("lmx.BatchMatcher.fill: expected " + std::to_string(count) +
                          " rows, got " + std::to_string(b->batch.rows.size()));
  std::vector<int64_t> sorted = b->batch.rows;
  std::sort(sorted.begin(), sorted.end());
  for (const int64_t row : b->batch.rows) check_row("BatchMatcher.fill", row, num_rows);
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
    throw py::value_error("lmx.BatchMatcher.fill: expected rows that differ");
  std::vector<Matcher*> unique = b->batch.matchers;
  std::sort(unique.begin(), unique.end());
  if (std::adjacent_find(unique.begin(), unique.end()) != unique.end())
    throw py::value_error("lmx.BatchMatcher.fill: expected each matcher once");
  return b;
}

// A fill under way. The batch is freed with the GIL, which a pool's thread does not hold.
struct Pending {
  std::shared_ptr<PyBatch> batch;
  std::shared_ptr<Task> task;
  ~Pending() {
    try {
      wait();
    } catch (...) {
    }
  }
  std::vector<int32_t> wait() {
    if (task) {
      const py::gil_scoped_release release;
      task->wait();
    }
    return batch->status;
  }
};

py::tuple fill_tree(Matcher& matcher, const std::vector<int32_t>& parents,
                    const std::vector<int64_t>& tokens, py::handle bitmask, bool root_is_current,
                    int64_t max_ms) {
  int64_t rows = 0;
  uint32_t* data = bitmask_data("Matcher.fill_tree", bitmask, matcher, &rows);
  const auto n = static_cast<int64_t>(parents.size());
  if (n != static_cast<int64_t>(tokens.size()) || n > rows)
    throw py::value_error("lmx.Matcher.fill_tree: expected as many tokens and rows as parents, " +
                          std::to_string(n) + ", got " + std::to_string(tokens.size()) + " and " +
                          std::to_string(rows));
  std::vector<int32_t> valid(n);
  {
    const py::gil_scoped_release release;
    matcher.fill_tree(
        {parents.data(), tokens.data(), n, data, valid.data(), root_is_current, max_ms});
  }
  return py::tuple(py::cast(valid));
}

// The tokens of the forced text; the last ones are left out while a token that is allowed there
// begins with their text and goes on, since the model might have chosen it.
py::list forced_tokens(NumberedMatcher& matcher, const py::function& encode) {
  constexpr int kMostDropped = 4;
  const std::string text = matcher.forced_bytes(true);
  if (text.empty()) return py::list();
  py::list tokens = encode(py::str(text)).cast<py::list>();
  const Vocabulary& vocabulary = matcher.grammar().vocabulary();
  NumberedMatcher probe(matcher);
  std::vector<size_t> begin{0};  // of each token in the text
  size_t accepted = 0;
  for (const py::handle token : tokens) {
    const auto t = token.cast<int64_t>();
    if (!probe.accept(t)) break;
    const std::string_view bytes = vocabulary.bytes(static_cast<int32_t>(t));
    if (text.compare(begin.back(), bytes.size(), bytes) != 0) break;
    begin.push_back(begin.back() + bytes.size());
    ++accepted;
  }
  std::vector<uint32_t> row(vocabulary.num_words());
  for (int dropped = 0; dropped < kMostDropped && accepted > 0; ++dropped) {
    NumberedMatcher here(matcher);
    for (size_t i = 0; i + 1 < accepted; ++i) here.accept(tokens[i].cast<int64_t>());
    here.fill(row.data());
    const std::string_view rest = std::string_view(text).substr(begin[accepted - 1]);
    bool is_spanned = false;
    for (int32_t t = 0; t < vocabulary.size() && !is_spanned; ++t)
      is_spanned = (row[t >> 5] >> (t & 31) & 1) && vocabulary.bytes(t).size() > rest.size() &&
                   vocabulary.bytes(t).substr(0, rest.size()) == rest;
    if (!is_spanned) break;
    --accepted;
  }
  py::list out;
  for (size_t i = 0; i < accepted; ++i) out.append(tokens[i]);
  return out;
}

// ---- errors ------------------------------------------------------------------------------------
void bind_errors() {
  py::register_exception_translator([](std::exception_ptr p) {
    const auto set = [](const char* name, const char* what) {
      PyErr_SetString(py::module_::import("lmx.errors").attr(name).ptr(), what);
    };
    if (p && raise_schema_error(p, set)) return;
    const auto raise = [&](const char* name, const std::exception& e) { set(name, e.what()); };
    try {
      if (p) std::rethrow_exception(p);
    } catch (const GrammarSyntaxError& e) {
      raise("GrammarSyntaxError", e);
    } catch (const UnsupportedRegexError& e) {
      raise("UnsupportedRegexError", e);
    } catch (const GrammarLimitError& e) {
      raise("GrammarLimitError", e);
    } catch (const GrammarError& e) {
      raise("GrammarError", e);
    }
  });
}

void bind_vocabulary(py::module_& m) {
  py::enum_<Spelling>(m, "Spelling")
      .value("RAW", Spelling::raw)
      .value("BYTE_FALLBACK", Spelling::byte_fallback)
      .value("BYTE_LEVEL", Spelling::byte_level);
  py::class_<Vocabulary, std::shared_ptr<Vocabulary>>(m, "Vocabulary")
      .def(py::init<const std::vector<std::string>&, Spelling, int64_t, std::vector<int32_t>,
                    std::vector<int32_t>>(),
           py::arg("entries"), py::arg("spelling"), py::arg("size"), py::arg("stop_ids"),
           py::arg("special_ids"))
      .def_property_readonly("size", &Vocabulary::size)
      .def_property_readonly("stop_ids", &Vocabulary::stop_ids)
      .def_property_readonly("special_ids", &Vocabulary::special_ids)
      .def_property_readonly("num_words", &Vocabulary::num_words)
      .def_property_readonly("longest", &Vocabulary::longest)
      .def_property_readonly("fingerprint", &Vocabulary::fingerprint)
      .def("memory_bytes", &Vocabulary::memory_bytes)
      .def("token_bytes",
           [](const Vocabulary& v, int64_t token) {
             if (token < 0 || token >= v.size())
               throw py::value_error("TokenizerInfo.token_bytes: expected a token in [0, " +
                                     std::to_string(v.size()) + "), got " + std::to_string(token));
             return py::bytes(std::string(v.bytes(static_cast<int32_t>(token))));
           })
      .def("save", [](const Vocabulary& v) { return py::bytes(v.save()); })
      .def_static("load", [](const std::string& data) { return Vocabulary::load(data); });
}

void bind_language(py::module_& m) {
  py::class_<Grammar>(m, "Grammar")
      .def_readonly("warnings", &Grammar::warnings)
      .def_property_readonly("num_rules", [](const Grammar& g) { return g.rules.size(); })
      // Equal keys mean equal languages.
      .def_property_readonly(
          "key", [](const Grammar& g) { return g.factory ? g.factory->key() : to_ebnf(g); })
      .def("__str__", &to_ebnf)
      .def_static("from_ebnf", &parse_ebnf, py::arg("text"), py::arg("root") = "root")
      .def_static(
          "from_regex",
          [](const std::string& pattern, const std::string& flags) {
            parse_regex(pattern, flags);  // its errors now
            Grammar grammar;
            grammar.rules = {{"root", regex(pattern, flags)}};
            return grammar;
          },
          py::arg("pattern"), py::arg("flags") = "")
      .def_static(
          "json",
          [](const std::string& gap, bool only_containers) {
            return json_grammar(regex(gap, ""), only_containers);
          },
          py::arg("gap"), py::arg("only_containers") = false)
      .def_static("union",
                  [](const std::vector<const Grammar*>& g) { return combine(g, Kind::choice); })
      .def_static("concat",
                  [](const std::vector<const Grammar*>& g) { return combine(g, Kind::sequence); });
  py::class_<CompiledGrammar, std::shared_ptr<CompiledGrammar>>(m, "CompiledGrammar")
      .def(py::init([](const Grammar& grammar, std::shared_ptr<Vocabulary> vocabulary,
                       int64_t limit_ms, int64_t max_steps, int64_t max_memory, bool cache) {
             return std::make_shared<CompiledGrammar>(
                 grammar, vocabulary, CompileOptions{limit_ms, max_steps, max_memory, cache});
           }),
           py::arg("grammar"), py::arg("vocabulary"), py::arg("limit_ms"), py::arg("max_steps"),
           py::arg("max_memory"), py::arg("cache"), py::call_guard<py::gil_scoped_release>())
      .def("memory_bytes", &CompiledGrammar::memory_bytes)
      .def_property_readonly("text", &CompiledGrammar::text)
      .def_property_readonly("vocabulary",
                             [](const CompiledGrammar& c) {
                               return std::const_pointer_cast<Vocabulary>(c.vocabulary_ptr());
                             })
      .def("precompute", &CompiledGrammar::precompute, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("num_generations", &CompiledGrammar::num_generations);
}

void bind_matcher(py::module_& m) {
  py::class_<Matcher>(m, "MatcherBase");
  py::class_<NumberedMatcher, Matcher>(m, "Matcher")
      .def(py::init([](std::shared_ptr<CompiledGrammar> compiled,
                       std::optional<std::vector<int32_t>> stop_ids, bool terminate_without_stop) {
             return std::make_unique<NumberedMatcher>(std::move(compiled),
                                                      stop_ids.value_or(std::vector<int32_t>{}),
                                                      stop_ids.has_value(), terminate_without_stop);
           }),
           py::arg("compiled"), py::arg("stop_ids") = py::none(),
           py::arg("terminate_without_stop") = false)
      .def_property_readonly("compiled", [](const Matcher& m) { return m.grammar_ptr(); })
      .def("fork", [](const NumberedMatcher& m) { return std::make_unique<NumberedMatcher>(m); })
      .def("accept", &Matcher::accept, py::arg("token"))
      .def("accept_bytes", &Matcher::accept_bytes, py::arg("data"))
      .def("accept_many",
           [](Matcher& matcher, const std::vector<int64_t>& tokens) {
             int64_t n = 0;
             for (const int64_t token : tokens)
               if (matcher.accept(token))
                 ++n;
               else
                 break;
             return n;
           })
      .def("validate", [](Matcher& matcher,
                          const std::vector<int64_t>& tokens) { return matcher.validate(tokens); })
      .def("fill", &fill, py::arg("bitmask"), py::arg("row") = 0)
      .def("rollback", &Matcher::rollback, py::arg("steps"))
      .def("reset", &Matcher::reset)
      .def("is_completed", &Matcher::is_completed)
      .def("is_terminated", &Matcher::is_terminated)
      .def("mask_id", &Matcher::mask_id)
      .def("generation", &Matcher::generation)
      .def(
          "forced_bytes",
          [](Matcher& matcher, bool utf8_complete) {
            return py::bytes(matcher.forced_bytes(utf8_complete));
          },
          py::arg("utf8_complete") = true)
      .def("forced_tokens", &forced_tokens, py::arg("encode"))
      .def("fill_tree", &fill_tree, py::arg("parents"), py::arg("tokens"), py::arg("bitmask"),
           py::arg("root_is_current") = false, py::arg("max_ms") = 0)
      .def_property_readonly("steps", &Matcher::steps)
      .def_property_readonly("handle", &NumberedMatcher::handle);
}

template <typename T>
py::bytes as_bytes(const std::vector<T>& v) {
  return py::bytes(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T));
}

void bind_device(py::module_& m) {
  m.def("device_tables", [](CompiledGrammar& grammar, int64_t max_states) {
    DeviceTables t;
    {
      const py::gil_scoped_release release;
      t = device_tables(grammar, max_states);
    }
    return py::make_tuple(t.num_states, as_bytes(t.transitions), as_bytes(t.classes), t.num_masks,
                          as_bytes(t.masks), as_bytes(t.mask_ids));
  });
  m.def("device_vocabulary", [](const Vocabulary& vocabulary) {
    const DeviceVocabulary v = device_vocabulary(vocabulary);
    return py::make_tuple(as_bytes(v.symbols), as_bytes(v.offsets));
  });
}

void bind_batch(py::module_& m) {
  py::class_<Pending, std::shared_ptr<Pending>>(m, "PendingFill")
      .def("wait", &Pending::wait)
      .def("done", [](const Pending& p) { return !p.task || p.task->done(); });
  m.def("time_calls", &time_calls);
  m.def("fill_batch", [](const py::list& matchers, py::handle bitmask,
                         const std::optional<std::vector<int64_t>>& rows, int num_threads) {
    const auto b = make_batch(matchers, bitmask, rows);
    const py::gil_scoped_release release;
    fill_batch(b->batch, num_threads);
    return b->status;
  });
  m.def("fill_async", [](const py::list& matchers, py::handle bitmask,
                         const std::optional<std::vector<int64_t>>& rows, int num_threads) {
    auto pending = std::make_shared<Pending>();
    pending->batch = make_batch(matchers, bitmask, rows);
    const FillBatch* batch = &pending->batch->batch;
    pending->task = Pool::shared(num_threads).submit([batch] { fill_batch(*batch, 1); });
    return pending;
  });
}
}  // namespace

void bind_host(py::module_& m) {
  bind_errors();
  bind_vocabulary(m);
  bind_language(m);
  bind_schema(m);
  bind_matcher(m);
  bind_batch(m);
  bind_device(m);
}
}  // namespace lmx::grammar
