// Routes that show the text side at work: tokens, text and templates.
#pragma once

#include "coordinator/routes.h"

namespace neurogrid {

HttpResponse AnswerTokenize(ApiContext& context, const RouteCall& call);
HttpResponse AnswerDetokenize(ApiContext& context, const RouteCall& call);
HttpResponse AnswerApplyTemplate(ApiContext& context, const RouteCall& call);
HttpResponse AnswerTokenizerInfo(ApiContext& context, const RouteCall& call);

}  // namespace neurogrid
