// grammar/host/schema_document.cpp
#include "schema_document.h"

#include <algorithm>

namespace lmx::grammar {
namespace {
int draft_of(const Json& root) {
  const Json* uri = root.find("$schema");
  if (!uri) return 2020;
  if (!uri->is(Json::Kind::string))
    throw UnsupportedSchemaError("#/$schema: $schema: expected a string");
  constexpr std::pair<const char*, int> kDrafts[] = {
      {"draft-04", 4}, {"draft-06", 6}, {"draft-07", 7}, {"2019-09", 2019}, {"2020-12", 2020}};
  for (const auto& [name, draft] : kDrafts)
    if (uri->text.find(std::string(name[0] == 'd' ? "json-schema.org/" : "/draft/") + name) !=
        std::string::npos)
      return draft;
  if (uri->text == "http://json-schema.org/schema#" || uri->text == "http://json-schema.org/schema")
    return 2020;
  throw UnsupportedSchemaError(
      "#/$schema: $schema: expected draft 4, 6, 7, 2019-09 or 2020-12, got \"" + uri->text + "\"");
}

// RFC 3986, section 5.2, for what schemas use: absolute URIs, absolute and relative paths.
std::string joined(const std::string& base, const std::string& reference) {
  const size_t colon = reference.find(':');
  if (colon != std::string::npos && reference.find_first_of("/?#") > colon) return reference;
  if (reference.empty()) return base;
  const size_t scheme = base.find("://");
  const size_t path = scheme == std::string::npos ? 0 : base.find('/', scheme + 3);
  if (reference.starts_with("//"))
    return (scheme == std::string::npos ? "" : base.substr(0, scheme + 1)) + reference;
  if (reference[0] == '/') return base.substr(0, path) + reference;
  if (path == std::string::npos) return base + "/" + reference;
  const size_t slash = base.rfind('/');
  std::string out = slash == std::string::npos || slash < path ? "" : base.substr(0, slash + 1);
  std::string rest = reference;
  while (rest.starts_with("./") || rest.starts_with("../")) {
    const bool is_up = rest[1] == '.';
    rest = rest.substr(is_up ? 3 : 2);
    if (is_up && out.size() > path + 1) out = out.substr(0, out.rfind('/', out.size() - 2) + 1);
  }
  return out + rest;
}

std::pair<std::string, std::string> split(const std::string& uri) {
  const size_t hash = uri.find('#');
  return hash == std::string::npos ? std::pair{uri, std::string()}
                                   : std::pair{uri.substr(0, hash), uri.substr(hash + 1)};
}

std::string percent_decoded(const std::string& s) {
  const auto hex = [](char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
  };
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '%' && i + 2 < s.size() + 0 && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0) {
      out += static_cast<char>(16 * hex(s[i + 1]) + hex(s[i + 2]));
      i += 2;
    } else {
      out += s[i];
    }
  }
  return out;
}

// A JSON pointer (RFC 6901); null if there is nothing.
const Json* at_pointer(const Json& root, const std::string& pointer) {
  const Json* at = &root;
  for (size_t i = 0; i < pointer.size();) {
    const size_t end = std::min(pointer.find('/', i + 1), pointer.size());
    std::string key;
    for (size_t k = i + 1; k < end; ++k) {
      if (pointer[k] == '~' && k + 1 < end)
        key += pointer[++k] == '1' ? '/' : '~';
      else
        key += pointer[k];
    }
    i = end;
    if (at->is(Json::Kind::array)) {
      if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != std::string::npos)
        return nullptr;
      const auto k = static_cast<size_t>(std::stoi(key));
      if (k >= at->items.size()) return nullptr;
      at = &at->items[k];
    } else {
      at = at->find(key);
    }
    if (!at) return nullptr;
  }
  return at;
}

bool find_path(const Json& from, const Json& part, std::string& path) {
  if (&from == &part) return true;
  for (size_t i = 0; i < from.items.size(); ++i) {
    const size_t size = path.size();
    path += '/';
    if (from.is(Json::Kind::array)) {
      path += std::to_string(i);
    } else {
      for (const char c : from.keys[i])
        path += c == '~' ? std::string("~0") : c == '/' ? std::string("~1") : std::string(1, c);
    }
    if (find_path(from.items[i], part, path)) return true;
    path.resize(size);
  }
  return false;
}
}  // namespace

SchemaDocument::SchemaDocument(std::string_view text, const SchemaOptions& options) {
  documents_.push_back(std::make_unique<Json>(parse_json(text)));
  const Json& first = root();
  if (!first.is(Json::Kind::object) && !first.is(Json::Kind::boolean))
    throw UnsupportedSchemaError(std::string("#: expected an object or a boolean, got ") +
                                 name_of(first.kind));
  draft_ = draft_of(first);
  bases_.push_back("");
  for (const auto& [uri, source] : options.registry) {
    documents_.push_back(std::make_unique<Json>(parse_json(source)));
    bases_.push_back(split(uri).first);
  }
  for (size_t i = 0; i < documents_.size(); ++i) {
    resources_.try_emplace(bases_[i], documents_[i].get());
    index(*documents_[i], bases_[i], false);
  }
}

// `is_map`: its members are schemas by name, not keywords.
void SchemaDocument::index(const Json& value, std::string base, bool is_map) {
  constexpr std::string_view kMaps[] = {"properties",  "patternProperties", "$defs",
                                        "definitions", "dependentSchemas",  "dependencies"};
  constexpr std::string_view kData[] = {"enum", "const", "default", "examples", "example"};
  if (value.is(Json::Kind::object) && !is_map) {
    const auto text = [&](const char* key) {
      const Json* found = value.find(key);
      return found && found->is(Json::Kind::string) ? &found->text : nullptr;
    };
    const std::string* id = text(draft_ == 4 ? "id" : "$id");
    if (id && !(draft_ <= 7 && value.find("$ref") && id->starts_with('#'))) {
      const auto [uri, fragment] = split(joined(base, *id));
      if (fragment.empty() || !id->starts_with('#')) {
        base = uri;
        resources_.try_emplace(base, &value);
      }
      if (!fragment.empty()) anchors_.try_emplace(base + "#" + fragment, &value);
    }
    for (const char* key : {"$anchor", "$dynamicAnchor"})
      if (const std::string* name = text(key)) anchors_.try_emplace(base + "#" + *name, &value);
    if (const std::string* name = text("$dynamicAnchor")) ++dynamic_[*name];
    if (const Json* mark = value.find("$recursiveAnchor")) num_recursive_ += mark->truth;
    if (text("$ref") || text("$dynamicRef") || text("$recursiveRef")) base_[&value] = base;
  }
  for (size_t i = 0; i < value.items.size(); ++i) {
    const std::string_view key = value.keys.empty() ? "" : std::string_view(value.keys[i]);
    const bool is_keyword = !value.keys.empty() && !is_map;
    if (is_keyword && std::find(std::begin(kData), std::end(kData), key) != std::end(kData))
      continue;
    index(value.items[i], base,
          is_keyword && std::find(std::begin(kMaps), std::end(kMaps), key) != std::end(kMaps));
  }
}

std::string SchemaDocument::base_of(const Json& schema) const {
  const auto found = base_.find(&schema);
  return found == base_.end() ? "" : found->second;
}

const Json& SchemaDocument::resolve(const Json& schema, const std::string& reference) const {
  const auto [uri, fragment] = split(joined(base_of(schema), reference));
  const auto resource = resources_.find(reference.starts_with('#') ? base_of(schema) : uri);
  if (resource == resources_.end())
    throw Refusal{"\"" + reference +
                  "\" is outside of this document: pass it as registry={uri: schema}"};
  const std::string decoded =
      percent_decoded(reference.starts_with('#') ? reference.substr(1) : fragment);
  const Json* found = resource->second;
  if (decoded.starts_with('/')) {
    found = at_pointer(*found, decoded);
  } else if (!decoded.empty()) {
    const auto anchor = anchors_.find(resource->first + "#" + decoded);
    found = anchor == anchors_.end() ? nullptr : anchor->second;
  }
  if (!found) throw Refusal{"\"" + reference + "\" names nothing"};
  if (!found->is(Json::Kind::object) && !found->is(Json::Kind::boolean))
    throw Refusal{"\"" + reference + "\" names no schema"};
  return *found;
}

const Json& SchemaDocument::resolve_dynamic(const Json& schema,
                                            const std::string& reference) const {
  const auto name = dynamic_.find(split(reference).second);
  if (name != dynamic_.end() && name->second > 1)
    throw Refusal{"\"" + reference + "\" may be overridden: it is anchored more than once"};
  return resolve(schema, reference);
}

const Json& SchemaDocument::resolve_recursive(const Json& schema,
                                              const std::string& reference) const {
  if (num_recursive_ > 1) throw Refusal{"\"" + reference + "\" may be overridden"};
  return resolve(schema, reference);
}

std::string SchemaDocument::pointer_to(const Json& part) const {
  for (size_t i = 0; i < documents_.size(); ++i) {
    std::string path = bases_[i] + "#";
    if (find_path(*documents_[i], part, path)) return path;
  }
  return "#";
}
}  // namespace lmx::grammar
