/* responses_tools.h - what a Responses request declares, now or in its history. */
#ifndef RESPONSES_TOOLS_H
#define RESPONSES_TOOLS_H
#include "request.h"

/* The tools that the client runs under names which the API gives. */
#define TOOL_SEARCH "tool_search"
#define LOCAL_SHELL "local_shell"

/* Does the body declare this one? */
bool responses_declares(const Json *body, const char *type);

/* body.tools. What the API's own servers would run is passed over. */
bool responses_take_tools(Request *r);
/* tool_choice and parallel_tool_calls, when all tools are known. */
bool responses_take_choice(Request *r);
/* Tools that were found in the course of the conversation, as what the model is
 * told of them there. They may be called, and the tools block stays as it was. */
bool responses_found_tools(Request *r, const Json *list, Str *out);

#endif
