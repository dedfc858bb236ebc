// Where a model keeps its chat templates and special tokens (models.md 6.1, 3.6).
#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/mapped_file.h"
#include "engine/model/model_directory.h"
#include "engine/text/chat_template.h"

namespace neurogrid {
namespace {

constexpr size_t kTemplateBytesMax = 256 << 10;  // models.md 6.4
constexpr size_t kConfigBytesMax = 64 << 20;
constexpr size_t kTemplatesMax = 64;
constexpr absl::string_view kAdditional = "additional_chat_templates";
constexpr absl::string_view kSuffix = ".jinja";

bool Exists(const std::string& folder, absl::string_view name) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::path(folder) / std::string(name), error);
}

absl::StatusOr<std::string> ReadIn(const std::string& folder, const std::string& name,
                                   size_t bytes_max) {
  NG_ASSIGN_OR_RETURN(const std::string path, ResolveInFolder(folder, name));
  return ReadSmallFile(path, bytes_max);
}

/// An object from a JSON file of the folder; empty when there is no such file.
absl::StatusOr<Json> ReadConfig(const std::string& folder, const std::string& name) {
  if (!Exists(folder, name)) return Json(Json::Object());
  NG_ASSIGN_OR_RETURN(const std::string text, ReadIn(folder, name, kConfigBytesMax));
  absl::StatusOr<Json> config = ParseJson(text, kModelFileJsonLimits);
  if (!config.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, "/", name, ": ", config.status().message()));
  }
  if (!config->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, "/", name, ": is a JSON ",
                                                   config->kind_name(), ", expected an object"));
  }
  return config;
}

/// chat_template.jinja and the named ones beside it.
absl::Status ReadFiles(const std::string& folder, ChatTemplateSources& sources) {
  if (Exists(folder, "chat_template.jinja")) {
    NG_ASSIGN_OR_RETURN(std::string source,
                        ReadIn(folder, "chat_template.jinja", kTemplateBytesMax));
    sources.templates.push_back({"default", std::move(source)});
  }
  if (!Exists(folder, kAdditional)) return absl::OkStatus();
  const std::string additional = absl::StrCat(folder, "/", kAdditional);
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator entry(additional, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (absl::EndsWith(name, kSuffix)) names.push_back(std::move(name));
    if (names.size() > kTemplatesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(additional, ": more than ", kTemplatesMax, " chat templates"));
    }
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    NG_ASSIGN_OR_RETURN(std::string source, ReadIn(additional, name, kTemplateBytesMax));
    sources.templates.push_back({std::string(absl::StripSuffix(name, kSuffix)), std::move(source)});
  }
  return absl::OkStatus();
}

/// "chat_template" of tokenizer_config.json: a string, or a list of {name, template}.
absl::Status ReadConfigured(const std::string& folder, const Json& config,
                            ChatTemplateSources& sources) {
  const Json* const given = config.Find("chat_template");
  if (given == nullptr || given->is_null()) return absl::OkStatus();
  if (given->is_string()) {
    sources.templates.push_back({"default", given->as_string()});
    return absl::OkStatus();
  }
  const auto wrong = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, "/tokenizer_config.json: chat_template is a JSON ", given->kind_name(),
                     ", expected a string or a list of {name, template}"));
  };
  if (!given->is_array() || given->as_array().size() > kTemplatesMax) return wrong();
  for (const Json& item : given->as_array()) {
    const Json* const name = item.Find("name");
    const Json* const source = item.Find("template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return wrong();
    }
    sources.templates.push_back({name->as_string(), source->as_string()});
  }
  return absl::OkStatus();
}

/// The text of a special token: a string or {content: ...}; nothing when it is not set.
std::optional<Json> TokenText(const Json& value) {
  if (value.is_string()) return value;
  const Json* const content = value.Find("content");
  if (content != nullptr && content->is_string()) return *content;
  return std::nullopt;
}

/// Takes NAME_token: text and additional_special_tokens: [text ...] that are not there yet.
void AddSpecialTokens(const Json& config, Json& tokens) {
  for (const JsonMember& member : config.as_object()) {
    if (tokens.Find(member.key) != nullptr) continue;
    if (absl::EndsWith(member.key, "_token")) {
      if (std::optional<Json> text = TokenText(member.value)) tokens.Set(member.key, *text);
    } else if (member.key == "additional_special_tokens" && member.value.is_array()) {
      Json::Array texts;
      for (const Json& item : member.value.as_array()) {
        if (std::optional<Json> text = TokenText(item)) texts.push_back(*text);
      }
      if (!texts.empty()) tokens.Set(member.key, Json(std::move(texts)));
    }
  }
  const Json* const extra = config.Find("extra_special_tokens");
  if (extra != nullptr && extra->is_object()) AddSpecialTokens(*extra, tokens);
}

/// The text of the token that a key names, else of `otherwise`; a negative id is none.
absl::Status AddGgufToken(const Gguf& gguf, absl::string_view key, absl::string_view name,
                          int64_t otherwise, Json& special) {
  const std::string full = absl::StrCat("tokenizer.ggml.", key);
  int64_t id = otherwise;
  const bool named = gguf.Find(full) != nullptr;
  if (named) {
    NG_ASSIGN_OR_RETURN(id, gguf.Integer(full));
  }
  if (id < 0) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const std::vector<std::string>* const tokens,
                      gguf.Strings("tokenizer.ggml.tokens"));
  if (id >= static_cast<int64_t>(tokens->size())) {
    if (!named) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": ", full, " is ", id,
                                                   " but there are ", tokens->size(), " tokens"));
  }
  special.Set(name, Json((*tokens)[static_cast<size_t>(id)]));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ChatTemplateSources> ChatTemplateSourcesOfDirectory(const std::string& directory) {
  ChatTemplateSources sources;
  NG_ASSIGN_OR_RETURN(const Json config, ReadConfig(directory, "tokenizer_config.json"));
  NG_ASSIGN_OR_RETURN(const Json map, ReadConfig(directory, "special_tokens_map.json"));
  NG_RETURN_IF_ERROR(ReadFiles(directory, sources));
  if (sources.templates.empty()) NG_RETURN_IF_ERROR(ReadConfigured(directory, config, sources));
  // The map is older than the config and says no more; it fills in what the config leaves out.
  AddSpecialTokens(config, sources.special_tokens);
  AddSpecialTokens(map, sources.special_tokens);
  return sources;
}

absl::StatusOr<ChatTemplateSources> ChatTemplateSourcesOfGguf(const Gguf& gguf) {
  ChatTemplateSources sources;
  const std::string key = "tokenizer.chat_template";
  if (gguf.Find(key) != nullptr) {
    NG_ASSIGN_OR_RETURN(std::string source, gguf.String(key));
    sources.templates.push_back({"default", std::move(source)});
  }
  if (gguf.Find("tokenizer.chat_templates") != nullptr) {
    NG_ASSIGN_OR_RETURN(const std::vector<std::string>* const names,
                        gguf.Strings("tokenizer.chat_templates"));
    if (names->size() > kTemplatesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(gguf.path(), ": more than ", kTemplatesMax, " chat templates"));
    }
    for (const std::string& name : *names) {
      if (name == "default" && !sources.templates.empty()) continue;
      NG_ASSIGN_OR_RETURN(std::string source, gguf.String(absl::StrCat(key, ".", name)));
      sources.templates.push_back({name, std::move(source)});
    }
  }
  bool llama = false;
  if (gguf.Find("tokenizer.ggml.model") != nullptr) {
    NG_ASSIGN_OR_RETURN(const std::string model, gguf.String("tokenizer.ggml.model"));
    llama = model == "llama";
  }
  Json& special = sources.special_tokens;
  NG_RETURN_IF_ERROR(AddGgufToken(gguf, "bos_token_id", "bos_token", llama ? 1 : -1, special));
  NG_RETURN_IF_ERROR(AddGgufToken(gguf, "eos_token_id", "eos_token", llama ? 2 : -1, special));
  NG_RETURN_IF_ERROR(AddGgufToken(gguf, "unknown_token_id", "unk_token", llama ? 0 : -1, special));
  NG_RETURN_IF_ERROR(AddGgufToken(gguf, "padding_token_id", "pad_token", -1, special));
  return sources;
}

}  // namespace neurogrid
