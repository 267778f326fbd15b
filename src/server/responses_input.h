/* responses_input.h - the input of a Responses request: items to messages. */
#ifndef RESPONSES_INPUT_H
#define RESPONSES_INPUT_H
#include "request.h"

/* instructions, what previous_response_id stands for, and input. In the turn's
 * JSON input becomes the list of all items, with none but points to another. */
bool responses_take_input(Request *r);

#endif
