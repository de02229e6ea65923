// kvcache/host/module.cpp: the room's host classes, as lmx._C.kvcache.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/py_tensor.h"
#include "prefix_index.h"

namespace py = pybind11;

namespace lmx::kvcache {
namespace {
using Ints = std::vector<int64_t>;

py::handle dtype_of(const char* name) {
  return py::object(py::module_::import("torch").attr(name)).release();  // never freed
}
py::handle int32_dtype() {
  static const py::handle dtype = dtype_of("int32");
  return dtype;
}
py::handle int64_dtype() {
  static const py::handle dtype = dtype_of("int64");
  return dtype;
}

Tables tables_of(py::handle block_table, py::handle num_slots) {
  Tables t{};
  int64_t num_rows = 0;
  t.num_slots =
      vector_data<int32_t>(num_slots, "PagePool", "num_slots", int32_dtype(), &t.num_rows);
  t.block_table = tensor_data<int32_t>(block_table,
                                       {.method = "PagePool",
                                        .name = "block_table",
                                        .dtype = int32_dtype(),
                                        .rows = t.num_rows,
                                        .columns = -1},
                                       &num_rows);
  t.max_pages = block_table.attr("shape").attr("__getitem__")(1).cast<int64_t>();
  return t;
}

std::span<const int64_t> tokens_of(py::handle tokens, const char* method) {
  int64_t size = 0;
  const auto* data = vector_data<int64_t>(tokens, method, "tokens", int64_dtype(), &size);
  return {data, static_cast<size_t>(size)};
}

// The pool and its index, which keep the tables' tensors alive.
class PyPool {
 public:
  PyPool(int64_t num_pages, int64_t page_size, const py::object& block_table,
         const py::object& num_slots)
      : tables_(py::make_tuple(block_table, num_slots)),
        pool(num_pages, page_size, tables_of(block_table, num_slots)),
        index(pool) {}

  py::tuple reserve(const Ints& handles, const Ints& counts, py::handle slot_mapping) {
    int64_t size = 0;
    auto* slots = vector_data<int64_t>(slot_mapping, "PagePool.reserve", "slot_mapping",
                                       int64_dtype(), &size);
    const auto copies = pool.reserve(handles, counts, {slots, static_cast<size_t>(size)});
    py::list from, to;
    for (const PageCopy& copy : copies) {
      from.append(copy.from);
      to.append(copy.to);
    }
    return py::make_tuple(from, to);
  }
  py::tuple match(py::handle tokens, const std::string& key, int64_t multiple) {
    int64_t num_tokens = 0;
    const int64_t handle =
        index.match(tokens_of(tokens, "PrefixIndex.match"), key, multiple, num_tokens);
    return py::make_tuple(handle, num_tokens);
  }
  py::tuple stats() const {
    const PoolStats s = pool.stats();
    return py::make_tuple(s.pages_total, s.pages_free, s.slots_live, s.extra_holders);
  }

 private:
  py::tuple tables_;

 public:
  PagePool pool;
  PrefixIndex index;
};

void translate(std::exception_ptr p) {
  const auto type = [](const char* name) { return py::module_::import("lmx.errors").attr(name); };
  try {
    if (p) std::rethrow_exception(p);
  } catch (const OutOfPages& e) {
    const py::object error = type("OutOfPages");
    PyErr_SetObject(error.ptr(), error(e.needed, e.free).ptr());
  } catch (const OutOfRows& e) {
    PyErr_SetString(type("OutOfRows").ptr(), e.what());
  } catch (const StaleHandle& e) {
    PyErr_SetString(type("StaleHandle").ptr(), e.what());
  } catch (const Inconsistent& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

void bind_pool(py::class_<PyPool>& c) {
  c.def(py::init<int64_t, int64_t, const py::object&, const py::object&>())
      .def("create", [](PyPool& p) { return p.pool.create(); })
      .def("free", [](PyPool& p, const Ints& handles) { p.pool.free(handles); })
      .def("fork", [](PyPool& p, int64_t handle, int64_t n) { return p.pool.fork(handle, n); })
      .def("truncate", [](PyPool& p, int64_t handle, int64_t n) { p.pool.truncate(handle, n); })
      .def("share_prefix",
           [](PyPool& p, int64_t handle, int64_t n) { return p.pool.share_prefix(handle, n); })
      .def("reserve", &PyPool::reserve)
      .def("commit", [](PyPool& p, const Ints& handles,
                        const Ints& counts) { p.pool.commit(handles, counts); })
      .def("abandon", [](PyPool& p, const Ints& handles) { p.pool.abandon(handles); })
      .def("swap_out", [](PyPool& p, int64_t handle) { p.pool.swap_out(handle); })
      .def("swap_in", [](PyPool& p, int64_t handle) { return p.pool.swap_in(handle); })
      .def("length", [](const PyPool& p, int64_t handle) { return p.pool.length(handle); })
      .def("is_swapped", [](const PyPool& p, int64_t handle) { return p.pool.is_swapped(handle); })
      .def("pages", [](const PyPool& p, int64_t handle) { return p.pool.pages(handle); })
      .def("refcount",
           [](const PyPool& p, int32_t page) {
             if (page < 0 || page >= p.pool.num_pages()) throw py::index_error("lmx: no such page");
             return p.pool.refcount(page);
           })
      .def("stats", &PyPool::stats)
      .def("check_invariants", [](const PyPool& p) { p.pool.check_invariants(); })
      .def_property_readonly("num_free_pages",
                             [](const PyPool& p) { return p.pool.num_free_pages(); })
      .def_property_readonly("num_free_rows",
                             [](const PyPool& p) { return p.pool.num_free_rows(); })
      .def_property_readonly("num_reclaimable_pages",
                             [](const PyPool& p) { return p.index.reclaimable(); })
      .def_property_readonly("version", [](const PyPool& p) { return p.pool.version(); });
}

void bind_index(py::class_<PyPool>& c) {
  c.def("index_insert",
        [](PyPool& p, int64_t handle, py::handle tokens, const std::string& key) {
          p.index.insert(handle, tokens_of(tokens, "PrefixIndex.insert"), key);
        })
      .def("index_match", &PyPool::match)
      .def("index_clear", [](PyPool& p) { p.index.clear(); })
      .def("index_size", [](const PyPool& p) { return p.index.size(); });
}
}  // namespace

void bind_host(py::module_& m) {
  py::register_exception_translator(translate);
  py::class_<PyPool> pool(m, "PagePool");
  bind_pool(pool);
  bind_index(pool);
}
}  // namespace lmx::kvcache
