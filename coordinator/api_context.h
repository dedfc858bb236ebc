// What all API handlers share: the serving side, the text side, the model and the options.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/generator.h"
#include "coordinator/request_fields.h"
#include "coordinator/serving_metrics.h"
#include "engine/text/chat_format.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

struct ModelInfo {
  std::string id;             // in /v1/models
  int64_t created = 0;        // Unix seconds
  int64_t max_model_len = 0;  // tokens of prompt and output by model and flags
  std::vector<int32_t> end_ids = {};
  SamplingOptions defaults = {};  // generation_config.json over the protocol's own
  std::string pad_token = {};     // texts for /tokenizer_info; "": none
};

struct ApiOptions {
  std::vector<std::string> api_keys = {};  // lines as ApiKeys::Parse reads them
  std::vector<std::string> cors_origins = {};
  ParamsMode params = ParamsMode::kNormal;
  bool any_model_name = false;
  bool open_metrics = false;
  int64_t max_body_bytes = int64_t{8} << 20;
  int64_t default_max_tokens = 0;  // of chat; 0: the rest of the context
  int sse_keepalive_ms = 10'000;
  std::string version = {};
};

struct ApiContext {
  Generator& generator;
  const Tokenizer& tokenizer;
  const ChatTemplate* chat_template;  // null: this model has none
  const ChatFormat chat_format;       // what its template and tokenizer do with tools and reasoning
  const ModelInfo model;
  const ApiOptions options;
  ServingMetrics& metrics;
  const int64_t longest_token_bytes;  // no text of more bytes than tokens times this can fit
  std::atomic<bool> draining{false};  // no new work
  std::atomic<bool> ending{false};    // what still runs is ended with an error
};

/// Who asks: the owner of a key, or anybody where none is configured.
struct Caller {
  std::string key_id;
};

}  // namespace neurogrid
