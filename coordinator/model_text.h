// The text side of a model, loaded from wherever the model is: tokenizer and chat template.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "engine/model/checkpoint.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null: the model carries none
  std::vector<int32_t> end_ids;                 // of model and tokenizer together
};

absl::StatusOr<ModelText> LoadModelText(const Checkpoint& checkpoint);

/// What clients call the model: the name configured, else the folder's or file's name; ORG/NAME for
/// a folder of the hub cache.
std::string ModelName(const std::string& configured, const std::string& path);

}  // namespace neurogrid
