// grammar/host/schema_formats.cpp: formats of JSON Schema as regular expressions, anchored at both
// ends. Sources: RFC 3339 (dates), 5321 (email), 1123 (hostname), 2673 and 4291 (addresses), 3986
// and 3987 (URIs), 6570 (templates), 4122, 6901, 4648; draft-bhutton-relative-json-pointer-00.
#include <map>
#include <string>

#include "schema_strings.h"

namespace lmx::grammar {
namespace {
using Table = std::map<std::string_view, std::string>;

std::string any_of(std::initializer_list<std::string> parts) {
  std::string out = "(?:";
  for (const auto& part : parts) out += (out.size() > 3 ? "|" : "") + part;
  return out + ")";
}
std::string times(const std::string& part, const std::string& count) {
  return "(?:" + part + ")" + count;
}

std::string date() {
  return R"(\d{4}-)" +
         any_of({R"((?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01]))",
                 R"((?:0[469]|11)-(?:0[1-9]|[12]\d|30))", R"(02-(?:0[1-9]|1\d|2\d))"});
}
std::string time() {
  return R"((?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?)"
         R"((?:[Zz]|[+\-](?:[01]\d|2[0-3]):[0-5]\d))";
}
std::string duration() {
  const std::string clock =
      "T" + any_of({R"(\d+H(?:\d+M(?:\d+S)?)?)", R"(\d+M(?:\d+S)?)", R"(\d+S)"});
  const std::string days = any_of({R"(\d+Y(?:\d+M(?:\d+D)?)?)", R"(\d+M(?:\d+D)?)", R"(\d+D)"});
  return "P" + any_of({R"(\d+W)", days + times(clock, "?"), clock});
}

std::string ipv4() {
  const std::string part = R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
  return part + times(R"(\.)" + part, "{3}");
}
std::string ipv6() {
  const std::string h = "[0-9A-Fa-f]{1,4}", last = any_of({h + ":" + h, ipv4()});
  const auto before = [&](int n) {  // at most n groups before ::
    return n == 0 ? std::string()
                  : times(times(h + ":", "{0," + std::to_string(n - 1) + "}") + h, "?");
  };
  std::string out = times(h + ":", "{6}") + last;
  for (int after = 5; after >= 0; --after)
    out +=
        "|" + before(5 - after) + "::" + times(h + ":", "{" + std::to_string(after) + "}") + last;
  out += "|" + before(6) + "::" + h + "|" + before(7) + "::";
  return "(?:" + out + ")";
}

std::string hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?";
  return label + times("\\." + label, "*");
}
std::string email() {
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]+";
  const std::string quoted = R"("(?:[ !#-\[\]-~]|\\[ -~])*")";
  return any_of({atom + times("\\." + atom, "*"), quoted}) + "@" +
         any_of({hostname(), "\\[" + ipv4() + "\\]", "\\[IPv6:" + ipv6() + "\\]"});
}

// RFC 3986, appendix A; `more` are the characters that RFC 3987 adds.
struct Uri {
  std::string more, more_in_query;
  std::string chars(const std::string& extra) const {
    return "(?:[A-Za-z0-9\\-._~!$&'()*+,;=" + extra + more + "]|%[0-9A-Fa-f]{2})";
  }
  std::string authority() const {
    const std::string future = "[Vv][0-9A-Fa-f]+\\.[A-Za-z0-9\\-._~!$&'()*+,;=:]+";
    return times(times(chars(":"), "*") + "@", "?") +
           any_of({"\\[" + any_of({ipv6(), future}) + "\\]", times(chars(""), "*")}) +
           times(":\\d*", "?");
  }
  std::string segments() const { return times("/" + times(chars(":@"), "*"), "*"); }
  std::string tail() const {
    const std::string query = "(?:" + chars(":@/?" + more_in_query) + ")*";
    const std::string fragment = "(?:" + chars(":@/?") + ")*";
    return times("\\?" + query, "?") + times("#" + fragment, "?");
  }
  std::string path(const std::string& first) const {
    return any_of({"//" + authority() + segments(),
                   "/" + times(times(chars(":@"), "+") + segments(), "?"),
                   times(first, "+") + segments(), ""});
  }
  std::string absolute() const { return "[A-Za-z][A-Za-z0-9+\\-.]*:" + path(chars(":@")) + tail(); }
  std::string reference() const { return any_of({absolute(), path(chars("@")) + tail()}); }
};

std::string uri_template() {
  const std::string literal =
      R"((?:[!#$&(-;=?-\[\]_a-z~\u00A0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF]|%[0-9A-Fa-f]{2}))";
  const std::string name_char = "(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})";
  const std::string name = name_char + times("\\.?" + name_char, "*");
  const std::string variable = name + "(?::[1-9]\\d{0,3}|\\*)?";
  const std::string expression =
      "\\{[+#./;?&=,!@|]?" + variable + times("," + variable, "*") + "\\}";
  return times(any_of({literal, expression}), "*");
}

Table make() {
  const Uri uri{"", ""};
  const Uri iri{R"(\u00A0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF\u{10000}-\u{1FFFD}\u{20000}-\u{2FFFD})"
                R"(\u{30000}-\u{3FFFD}\u{40000}-\u{DFFFD}\u{E1000}-\u{EFFFD})",
                R"(\uE000-\uF8FF\u{F0000}-\u{FFFFD}\u{100000}-\u{10FFFD})"};
  const std::string pointer = R"((?:/(?:[^/~]|~[01])*)*)";
  return {{"date", date()},
          {"time", time()},
          {"date-time", date() + "[Tt]" + time()},
          {"duration", duration()},
          {"email", email()},
          {"idn-email", email()},
          {"hostname", hostname()},
          {"idn-hostname", hostname()},
          {"ipv4", ipv4()},
          {"ipv6", ipv6()},
          {"uri", uri.absolute()},
          {"uri-reference", uri.reference()},
          {"iri", iri.absolute()},
          {"iri-reference", iri.reference()},
          {"uri-template", uri_template()},
          {"uuid", "[0-9A-Fa-f]{8}-" + times("[0-9A-Fa-f]{4}-", "{3}") + "[0-9A-Fa-f]{12}"},
          {"json-pointer", pointer},
          {"relative-json-pointer", "(?:0|[1-9]\\d*)" + any_of({"#", pointer})},
          {"byte", "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"}};
}
}  // namespace

const char* format_pattern(std::string_view name) {
  static const Table kFormats = make();
  const auto found = kFormats.find(name);
  return found == kFormats.end() ? nullptr : found->second.c_str();
}
}  // namespace lmx::grammar
