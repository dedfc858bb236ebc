#include "common/hub_settings.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"

namespace neurogrid {
namespace {

constexpr size_t kTokenBytesMax = 4096;

/// The first of these variables that is set and not empty.
std::string FirstOf(const Environment& environment, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* value = environment(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return "";
}

std::string Expanded(const Environment& environment, std::string path) {
  const char* home = environment("HOME");
  if (home != nullptr && (path == "~" || path.rfind("~/", 0) == 0)) path.replace(0, 1, home);
  return path;
}

bool IsTrue(std::string value) {
  absl::AsciiStrToUpper(&value);
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

/// Leaves `value` as it is when the variable is not set.
absl::Status ReadWhole(const Environment& environment, const char* name, int low, int high,
                       int& value) {
  const std::string text = FirstOf(environment, {name});
  if (text.empty()) return absl::OkStatus();
  if (absl::SimpleAtoi(text, &value) && value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is \"", text, "\", expected a whole number from ", low, " to ", high));
}

/// From the environment, else from the file of the login; empty when there is neither.
absl::StatusOr<std::string> ReadToken(const Environment& environment, const std::string& home) {
  std::string place = "HF_TOKEN";
  std::string token = FirstOf(environment, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"});
  if (token.empty()) {
    place = Expanded(environment, FirstOf(environment, {"HF_TOKEN_PATH"}));
    if (place.empty()) place = home + "/token";
    const absl::StatusOr<std::string> text = ReadSmallFile(place, kTokenBytesMax);
    if (!text.ok()) return "";
    token = *text;
  }
  token = std::string(absl::StripAsciiWhitespace(token));
  for (const char c : token) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": the token of the hub holds spaces or control characters"));
    }
  }
  return token;
}

}  // namespace

absl::StatusOr<HubSettings> ReadHubSettings(const Environment& environment) {
  HubSettings settings;
  const std::string endpoint = FirstOf(environment, {"HF_ENDPOINT"});
  if (!endpoint.empty()) settings.endpoint = endpoint;
  std::string home = FirstOf(environment, {"HF_HOME"});
  if (home.empty()) {
    std::string caches = FirstOf(environment, {"XDG_CACHE_HOME"});
    if (caches.empty()) caches = "~/.cache";
    home = caches + "/huggingface";
  }
  home = Expanded(environment, home);
  settings.cache =
      Expanded(environment, FirstOf(environment, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}));
  if (settings.cache.empty()) settings.cache = home + "/hub";
  settings.ca_file = FirstOf(environment, {"SSL_CERT_FILE"});
  settings.offline = IsTrue(FirstOf(environment, {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));
  int seconds = settings.stall_timeout_ms / 1000;
  NG_RETURN_IF_ERROR(ReadWhole(environment, "HF_HUB_DOWNLOAD_TIMEOUT", 1, 3600, seconds));
  settings.stall_timeout_ms = seconds * 1000;
  NG_RETURN_IF_ERROR(
      ReadWhole(environment, "NEUROGRID_HUB_RETRY_MS", 0, 60'000, settings.retry_delay_ms));
  NG_ASSIGN_OR_RETURN(settings.token, ReadToken(environment, home));
  return settings;
}

}  // namespace neurogrid
