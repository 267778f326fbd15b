/* literals.h - the fixed texts of the prompt language, byte for byte the
 * official encoder's. */
#ifndef LITERALS_H
#define LITERALS_H
#include "../base/base.h"

/* After the begin token in thinking mode. The preview release has the first
 * of them for max, the release of 0731 for high and max. */
extern const Str effort_absolute, effort_beyond;

/* After the system text: the prefix, one line of JSON a tool joined by
 * newlines, the suffix. */
extern const Str tools_prefix, tools_suffix;

/* Before the JSON of a response format. */
extern const Str response_format_prefix;

#endif
