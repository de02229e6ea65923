// csrc/ngram/host/module.cpp: the room's host classes, as lmx._C.ngram.
#include "module.h"

#include <pybind11/stl.h>

#include <optional>

#include "mapping.h"
#include "searcher.h"
#include "tables.h"

namespace py = pybind11;

namespace lmx::ngram {
namespace {
// The memory of a contiguous buffer; as long as the Python object lives.
template <typename T>
T* memory_of(const py::buffer& buffer, int64_t* count, bool writable) {
  const py::buffer_info info = buffer.request(writable);
  const auto bytes = static_cast<int64_t>(info.size) * static_cast<int64_t>(info.itemsize);
  int64_t stride = static_cast<int64_t>(info.itemsize);
  for (size_t d = info.shape.size(); d-- > 0; stride *= info.shape[d])
    if (info.shape[d] > 1 && info.strides[d] != stride)
      throw py::value_error("lmx.ngram: expected a contiguous buffer");
  *count = bytes / static_cast<int64_t>(sizeof(T));
  return static_cast<T*>(info.ptr);
}

Tables tables_of(const py::buffer& text, int token_bytes, int64_t vocab_size, const py::buffer& sa,
                 const py::buffer& lut, const py::buffer& skey, bool writes_side) {
  Tables t{};
  int64_t bytes = 0, num_lut = 0, num_keys = 0;
  t.text = memory_of<uint8_t>(text, &bytes, false);
  t.token_bytes = token_bytes;
  t.num_tokens = bytes / token_bytes;
  t.sa = memory_of<uint32_t>(sa, &t.num_suffixes, false);
  t.lut = memory_of<int64_t>(lut, &num_lut, writes_side);
  t.skey = memory_of<uint64_t>(skey, &num_keys, writes_side);
  t.vocab_size = vocab_size;
  if (num_lut != vocab_size + 2 || num_keys != (t.num_suffixes + 63) / 64)
    throw py::value_error("lmx.ngram: tables of another size");
  return t;
}

// A query from a Python sequence of ints. `strict`: tokens outside the vocabulary are refused.
std::vector<int64_t> tokens_of(const py::handle& query, int64_t vocab_size, bool strict) {
  const auto fast = py::reinterpret_steal<py::object>(
      PySequence_Fast(query.ptr(), "lmx.ngram: expected a sequence of tokens"));
  if (!fast) throw py::error_already_set();
  const auto size = PySequence_Fast_GET_SIZE(fast.ptr());
  std::vector<int64_t> tokens(static_cast<size_t>(size));
  for (Py_ssize_t i = 0; i < size; ++i) {
    int overflow = 0;
    PyObject* item = PySequence_Fast_GET_ITEM(fast.ptr(), i);
    const long long token = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (token == -1 && !overflow && PyErr_Occurred()) throw py::error_already_set();
    if (strict && (overflow || !is_token(token, vocab_size)))
      throw py::value_error("lmx.ngram: expected tokens in [0, " + std::to_string(vocab_size) +
                            "), got " + std::string(py::str(item)) + " at " + std::to_string(i));
    tokens[static_cast<size_t>(i)] = overflow ? -1 : token;
  }
  return tokens;
}

// Keeps the buffers of an index alive beside the searcher over them.
class PySearcher {
 public:
  PySearcher(const std::vector<py::buffer>& buffers, int token_bytes, int64_t vocab_size,
             int64_t eos_id, int ptr_bytes)
      : buffers_(buffers), vocab_size_(vocab_size) {
    Index index{};
    int64_t bytes = 0, num_lut = 0, num_rows = 0;
    index.text = memory_of<uint8_t>(buffers[0], &bytes, false);
    index.num_text = bytes / token_bytes;
    index.sa = memory_of<uint8_t>(buffers[1], &bytes, false);
    index.num_sa = ptr_bytes > 0 ? bytes : bytes / 4;
    index.lut = memory_of<int64_t>(buffers[2], &num_lut, false);
    index.skey = memory_of<uint64_t>(buffers[3], &index.num_skey, false);
    index.shards = memory_of<int64_t>(buffers[4], &num_rows, false);
    index.num_shards = num_rows / kShardColumns;
    if (num_lut == 0) index.lut = nullptr;
    if (num_lut != 0 && num_lut != index.num_shards * (vocab_size + 2))
      throw py::value_error("lmx.ngram: tables of another size");
    if (index.num_skey == 0) index.skey = nullptr;
    index.vocab_size = vocab_size, index.eos_id = eos_id;
    index.token_bytes = token_bytes, index.ptr_bytes = ptr_bytes;
    searcher_ = make_searcher(index);
  }

  py::object count(const py::handle& query, bool strict) const {
    const auto tokens = tokens_of(query, vocab_size_, strict);
    bool corrupt = false;
    const int64_t count =
        searcher_->count(tokens.data(), static_cast<int64_t>(tokens.size()), corrupt);
    return corrupt ? py::none() : py::object(py::int_(count));
  }

  // The sum of the counts of ragged queries, one after the other: what the op's interleaving is
  // measured against.
  int64_t sum_of_counts(const py::buffer& qtok, const py::buffer& qoff) const {
    int64_t num_tokens = 0, num_offsets = 0, sum = 0;
    const auto* tokens = memory_of<int64_t>(qtok, &num_tokens, false);
    const auto* offsets = memory_of<int64_t>(qoff, &num_offsets, false);
    const py::gil_scoped_release release;
    bool corrupt = false;
    for (int64_t q = 0; q + 1 < num_offsets; ++q) {
      const Span span = span_at(offsets, q, num_tokens);
      if (span.size >= 0) sum += searcher_->count(tokens + span.begin, span.size, corrupt);
    }
    return sum;
  }

  std::optional<Found> find(const py::handle& query, bool strict) const {
    const auto tokens = tokens_of(query, vocab_size_, strict);
    Found found = searcher_->find(tokens.data(), static_cast<int64_t>(tokens.size()));
    return found.corrupt ? std::nullopt : std::optional<Found>(std::move(found));
  }

  std::optional<Found> longest_suffix(const py::handle& context, int64_t max_len, int64_t min_count,
                                      int64_t prev_len, bool strict) const {
    const auto tokens = tokens_of(context, vocab_size_, strict);
    Found found = searcher_->longest_suffix(tokens.data(), static_cast<int64_t>(tokens.size()),
                                            max_len, min_count, prev_len);
    return found.corrupt ? std::nullopt : std::optional<Found>(std::move(found));
  }

  py::object next(const Found& found, int64_t token) const {
    bool corrupt = false;
    const int64_t count = searcher_->next(found, token, corrupt);
    return corrupt ? py::none() : py::object(py::int_(count));
  }

 private:
  std::vector<py::buffer> buffers_;
  int64_t vocab_size_;
  std::unique_ptr<Searcher> searcher_;
};

void bind_mapping(py::module_& m) {
  py::class_<Mapping>(m, "Mapping", py::buffer_protocol())
      .def(py::init(
               [](const std::vector<std::tuple<std::string, int64_t, int64_t>>& pieces, bool ram) {
                 std::vector<Piece> list;
                 for (const auto& [path, offset, bytes] : pieces)
                   list.push_back({path, offset, bytes});
                 const py::gil_scoped_release release;
                 return std::make_unique<Mapping>(list, ram);
               }),
           py::arg("pieces"), py::arg("ram"))
      .def_property_readonly("offsets", &Mapping::offsets)
      .def_buffer([](const Mapping& mapping) {
        return py::buffer_info(static_cast<uint8_t*>(mapping.data()), mapping.size(), true);
      });
}

void bind_building(py::module_& m) {
  py::register_exception<Cancelled>(m, "Cancelled", PyExc_RuntimeError);
  py::class_<Job>(m, "Job")
      .def(py::init<>())
      .def("cancel", [](Job& job) { job.cancelled = true; })
      .def_property_readonly("steps", [](const Job& job) { return job.steps.load(); });
  m.def(
      "crc32c",
      [](const py::buffer& bytes, uint32_t crc) {
        int64_t size = 0;
        const auto* p = memory_of<uint8_t>(bytes, &size, false);
        const py::gil_scoped_release release;
        return crc32c(p, static_cast<size_t>(size), crc);
      },
      py::arg("bytes"), py::arg("crc") = 0);
  m.def("exchange_names", &exchange_names, py::arg("a"), py::arg("b"));
  m.def("sort_shard", [](const py::buffer& text, int token_bytes, int64_t vocab_size,
                         const py::buffer& all, Job& job) {
    Tables t{};
    int64_t bytes = 0, size = 0;
    t.text = memory_of<uint8_t>(text, &bytes, false);
    t.token_bytes = token_bytes, t.vocab_size = vocab_size;
    t.num_tokens = bytes / token_bytes;
    auto* sa = memory_of<int32_t>(all, &size, true);
    if (size != t.num_tokens) throw py::value_error("lmx.ngram: an array of another size");
    const py::gil_scoped_release release;
    sort_shard(t, sa, job);
  });
  m.def("fill_tables", [](const py::buffer& text, int token_bytes, int64_t vocab_size,
                          const py::buffer& sa, const py::buffer& lut, const py::buffer& skey) {
    const Tables t = tables_of(text, token_bytes, vocab_size, sa, lut, skey, true);
    const py::gil_scoped_release release;
    fill_tables(t);
  });
  m.def("check_tables",
        [](const py::buffer& text, int token_bytes, int64_t vocab_size, const py::buffer& sa,
           const py::buffer& lut, const py::buffer& skey, int64_t samples, int64_t seed) {
          const Tables t = tables_of(text, token_bytes, vocab_size, sa, lut, skey, false);
          int64_t where = 0;
          const py::gil_scoped_release release;
          const char* wrong = check_tables(t, samples, seed, &where);
          return std::pair<std::string, int64_t>(wrong ? wrong : "", where);
        });
}

void bind_searcher(py::module_& m) {
  py::class_<Found>(m, "Found")
      .def_readonly("length", &Found::length)
      .def_readonly("count", &Found::count)
      .def_property_readonly("ranges", [](const Found& found) {
        std::vector<std::pair<int64_t, int64_t>> ranges;
        for (const Range& r : found.ranges) ranges.emplace_back(r.lo, r.hi);
        return ranges;
      });
  py::class_<PySearcher>(m, "Searcher")
      .def(py::init<const std::vector<py::buffer>&, int, int64_t, int64_t, int>(),
           py::arg("buffers"), py::arg("token_bytes"), py::arg("vocab_size"), py::arg("eos_id"),
           py::arg("ptr_bytes"))
      .def("count", &PySearcher::count, py::arg("query"), py::arg("strict") = true)
      .def("sum_of_counts", &PySearcher::sum_of_counts, py::arg("qtok"), py::arg("qoff"))
      .def("find", &PySearcher::find, py::arg("query"), py::arg("strict") = true)
      .def("longest_suffix", &PySearcher::longest_suffix, py::arg("context"),
           py::arg("max_len") = 0, py::arg("min_count") = 1, py::arg("prev_len") = -1,
           py::arg("strict") = true)
      .def("next", &PySearcher::next, py::arg("found"), py::arg("token"));
}
}  // namespace

void bind(py::module_& parent) {
  py::module_ m = parent.def_submodule("ngram");
  bind_mapping(m);
  bind_building(m);
  bind_searcher(m);
}
}  // namespace lmx::ngram
