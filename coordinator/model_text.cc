#include "coordinator/model_text.h"

#include <algorithm>
#include <filesystem>

#include "common/log.h"
#include "engine/model/hub_cache.h"

namespace neurogrid {

absl::StatusOr<ModelText> LoadModelText(const Checkpoint& checkpoint) {
  ModelText text;
  ChatTemplateSources sources;
  if (const Gguf* gguf = checkpoint.gguf()) {
    NG_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::FromGguf(*gguf));
    NG_ASSIGN_OR_RETURN(sources, ChatTemplateSourcesOfGguf(*gguf));
  } else {
    NG_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::FromDirectory(checkpoint.path()));
    NG_ASSIGN_OR_RETURN(sources, ChatTemplateSourcesOfDirectory(checkpoint.path()));
  }
  if (!sources.templates.empty()) {
    NG_ASSIGN_OR_RETURN(text.chat_template, ChatTemplate::Compile(std::move(sources)));
    for (const ChatTemplateSources::Named& named : text.chat_template->sources()) {
      text.tokenizer->AddControlText(named.source);
    }
    if (text.chat_template->reads_clock()) {
      LogWarning(
          "the chat template prints today's date: prompts change daily, and cached prefixes with "
          "them; a request's date_string pins it");
    }
  }
  text.end_ids = checkpoint.config().eos_ids;
  for (const int32_t id : text.tokenizer->end_ids()) text.end_ids.push_back(id);
  std::sort(text.end_ids.begin(), text.end_ids.end());
  text.end_ids.erase(std::unique(text.end_ids.begin(), text.end_ids.end()), text.end_ids.end());
  return text;
}

std::string ModelName(const std::string& configured, const std::string& path) {
  if (!configured.empty()) return configured;
  const std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  const std::filesystem::path name = clean.has_filename() ? clean : clean.parent_path();
  if (name.extension() == ".gguf") return name.stem().string();
  const std::string repository = RepositoryOfSnapshot(name.string());
  return repository.empty() ? name.filename().string() : repository;
}

}  // namespace neurogrid
