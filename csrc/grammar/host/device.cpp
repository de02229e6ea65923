// grammar/host/device.cpp
#include "device.h"

#include <cstring>
#include <map>
#include <unordered_map>

#include "../step.h"

namespace lmx::grammar {
namespace {
// Every configuration that bytes reach, in the order they are found, and their rows of steps.
struct Reached {
  std::vector<int32_t> configs;
  std::unordered_map<int32_t, int32_t> number;
  std::vector<std::vector<uint16_t>> rows;

  int32_t need(int32_t config, int64_t max_states) {
    const auto [it, is_new] = number.try_emplace(config, static_cast<int32_t>(configs.size()));
    if (is_new) configs.push_back(config);
    if (static_cast<int64_t>(configs.size()) >= max_states)
      throw GrammarLimitError("grammar: more than " + std::to_string(max_states) +
                              " configurations: not a regular grammar, or too large a one");
    return it->second;
  }
};

Reached explore(Arena& arena, int64_t max_states) {
  Reached r;
  r.need(arena.root(), max_states);
  for (size_t i = 0; i < r.configs.size(); ++i) {
    if (arena.config(r.configs[i]).has_tokens)
      throw GrammarError("grammar: an automaton for the device has no token edges");
    std::vector<uint16_t> row(256, kNoState);
    for (int b = 0; b < 256; ++b) {
      const int32_t to = arena.step(r.configs[i], static_cast<uint8_t>(b));
      if (to != kNone) row[b] = static_cast<uint16_t>(r.need(to, max_states));
    }
    r.rows.push_back(std::move(row));
  }
  return r;
}

// Bytes whose columns are equal share a class; then come the two symbols that are no bytes.
void compress(const Reached& reached, DeviceTables& t, const Arena& arena) {
  const size_t n = reached.rows.size();
  std::map<std::vector<uint16_t>, int16_t> kinds;
  std::vector<std::vector<uint16_t>> columns;
  const auto kind_of = [&](std::vector<uint16_t> column) {
    const auto [it, is_new] = kinds.try_emplace(column, static_cast<int16_t>(columns.size()));
    if (is_new) columns.push_back(std::move(column));
    return it->second;
  };
  for (int symbol = 0; symbol < kNumSymbols; ++symbol) {
    std::vector<uint16_t> column(n + 1, kNoState);
    for (size_t s = 0; s < n; ++s) {
      if (symbol < 256)
        column[s] = reached.rows[s][symbol];
      else if (symbol == kStopSymbol && arena.config(reached.configs[s]).is_accepting)
        column[s] = static_cast<uint16_t>(n);
    }
    if (symbol == kStopSymbol) column[n] = static_cast<uint16_t>(n);
    t.classes.push_back(kind_of(std::move(column)));
  }
  t.num_states = static_cast<int64_t>(n) + 1;
  t.num_classes = static_cast<int64_t>(columns.size());
  t.transitions.resize(t.num_states * t.num_classes);
  for (int64_t c = 0; c < t.num_classes; ++c)
    for (int64_t s = 0; s < t.num_states; ++s) t.transitions[s * t.num_classes + c] = columns[c][s];
}
}  // namespace

DeviceTables device_tables(CompiledGrammar& grammar, int64_t max_states) {
  DeviceTables t;
  const auto generation = grammar.current();
  const auto words = static_cast<size_t>(grammar.vocabulary().num_words());
  const Reached reached = grammar.locked(*generation, [&](Arena& arena, Masks&) {
    arena.meter.steps_left = 256 * max_states;
    Reached r = explore(arena, max_states);
    compress(r, t, arena);
    return r;
  });
  std::map<std::vector<uint32_t>, int32_t> masks;  // equal ones are stored once
  const auto add = [&](const std::vector<uint32_t>& row) {
    const auto [it, is_new] = masks.try_emplace(row, static_cast<int32_t>(masks.size()));
    if (is_new) t.masks.insert(t.masks.end(), row.begin(), row.end());
    t.mask_ids.push_back(it->second);
  };
  for (const int32_t config : reached.configs) {
    std::vector<uint32_t> row(words);
    grammar.locked(*generation, [&](Arena&, Masks& m) {
      write_mask(m.of(config), grammar.vocabulary(), row.data());
      return 0;
    });
    add(row);
  }
  std::vector<uint32_t> stops(words, 0);
  for (const int32_t id : grammar.vocabulary().stop_ids()) set_bit(stops.data(), id);
  add(stops);
  t.num_masks = static_cast<int64_t>(masks.size());
  return t;
}

DeviceVocabulary device_vocabulary(const Vocabulary& vocabulary) {
  DeviceVocabulary out;
  out.offsets.push_back(0);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.is_stop(id))
      out.symbols.push_back(kStopSymbol);
    else if (!vocabulary.is_spelled(id))
      out.symbols.push_back(kNeverSymbol);
    else
      for (const char c : vocabulary.bytes(id)) out.symbols.push_back(static_cast<uint8_t>(c));
    out.offsets.push_back(static_cast<int32_t>(out.symbols.size()));
  }
  return out;
}
}  // namespace lmx::grammar
